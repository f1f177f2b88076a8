"""Metadata of exported files: classes, preprocessing and input, one JSON document in every format."""
import json
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Sequence

import torch

from ..models.loading import ModelSource

__all__ = ['METADATA_KEY', 'METADATA_METHOD', 'executorch_method', 'read_metadata', 'source_metadata']

METADATA_KEY = 'metadata.json'  # extra file of a program, key of the other formats' metadata
METADATA_METHOD = 'metadata'  # of ExecuTorch, whose files have only methods


def source_metadata(source: ModelSource, name: str) -> Dict[str, Any]:
    """Return what a file says about its model: origin, classes, and the preprocessing of images.

    Args:
        source: The model.
        name: Where it came from.
    """
    classes, preprocessing = source.class_map, source.preprocessing.to_dict()
    preprocessing.pop('input_size')  # the file's own may be another
    return dict(
        model=source.architecture, source=name, weights_sha256=source.checksum, num_classes=source.num_classes,
        label_names=classes.names and [*classes.names], label_descriptions=classes.descriptions, **preprocessing)


def executorch_method(path: Path, name: str) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Load a method of a file of ExecuTorch."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # its API is called experimental
        from executorch.runtime import Runtime

        return Runtime.get().load_program(path).load_method(name).execute


def read_metadata(path: Path, format: str) -> Dict[str, Any]:
    """Read the metadata of an exported file, with the lines of docs/deployment.md."""
    if format == 'program':
        files = {METADATA_KEY: ''}
        torch.export.load(path, extra_files=files)
        return json.loads(files[METADATA_KEY])
    if format == 'package':
        return json.loads(torch._inductor.aoti_load_package(str(path)).get_metadata()[METADATA_KEY])
    if format == 'openvino':
        import openvino

        return json.loads(openvino.Core().read_model(path).get_rt_info(['framework', METADATA_KEY]).astype(str))
    if format == 'executorch':
        return json.loads(executorch_method(path, METADATA_METHOD)([])[0])
    import onnx

    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return json.loads(properties[METADATA_KEY])
