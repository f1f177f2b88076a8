"""Metadata of exported files: classes, preprocessing and input, one JSON document in every format."""
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import torch
from timm.data import ImageNetInfo, infer_imagenet_subset

from ..models.loading import ModelSource

__all__ = ['METADATA_KEY', 'class_names', 'read_metadata', 'source_metadata']

METADATA_KEY = 'metadata.json'  # extra file of a program, key of a package's and of ONNX's metadata


def class_names(model: Any) -> Tuple[Optional[List[str]], Optional[Dict[str, str]]]:
    """Return the names of a model's classes in the order of its logits, and their descriptions by name.

    They are those of the model's configuration. Without, they are ImageNet's synsets for the number of classes of
    ImageNet-1k, -12k, -21k or -22k, as in timm; of 1001 classes, the first is ``background``. Otherwise None.
    """
    config = model.pretrained_cfg
    if config.get('label_names'):
        return list(config['label_names']), config.get('label_descriptions')
    background = model.num_classes == 1001
    subset = infer_imagenet_subset(dict(num_classes=model.num_classes - background))
    if subset is None:
        return None, None
    info = ImageNetInfo(subset)
    return ['background'] * background + info.label_names(), info.label_descriptions(as_dict=True)  # type: ignore


def source_metadata(source: ModelSource, name: str) -> Dict[str, Any]:
    """Return what a file says about its model: origin, classes, and the preprocessing of images.

    Args:
        source: The model.
        name: Where it came from.
    """
    names, descriptions = class_names(source.model)
    return dict(
        model=source.architecture, source=name, weights_sha256=source.checksum, num_classes=source.num_classes,
        label_names=names, label_descriptions=descriptions, mean=[*source.mean], std=[*source.std],
        crop_pct=source.crop_pct, crop_mode=source.crop_mode, interpolation=source.interpolation)


def read_metadata(path: Path, format: str) -> Dict[str, Any]:
    """Read the metadata of an exported file, with the lines of docs/deployment.md."""
    if format == 'program':
        files = {METADATA_KEY: ''}
        torch.export.load(path, extra_files=files)
        return json.loads(files[METADATA_KEY])
    if format == 'package':
        return json.loads(torch._inductor.aoti_load_package(str(path)).get_metadata()[METADATA_KEY])
    import onnx

    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return json.loads(properties[METADATA_KEY])
