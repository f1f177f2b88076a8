"""Reading of TensorFlow 1 checkpoints, by TensorFlow's own reader, one variable at a time and never a slot.

The one module that imports TensorFlow, and only inside functions. Knows nothing of models.
"""
import hashlib
import os
import re
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Tuple

import numpy as np

__all__ = ['CheckpointVariables', 'find_checkpoint', 'open_checkpoint']

SLOTS = ('Momentum', 'Adam', 'Adam_1', 'RMSProp', 'RMSProp_1')  # the last part of an optimizer's own variables' names
COUNTERS = ('global_step', 'beta1_power', 'beta2_power')
OBJECT_GRAPH = '_CHECKPOINTABLE_OBJECT_GRAPH'
FILE = r'(.+?)\.(index|data-\d{5}-of-\d{5})'


def find_checkpoint(path: Path) -> Path:
    """The prefix of a checkpoint's files: what TensorFlow takes for its name.

    Args:
        path: The prefix, its ``.index`` file, or a folder, whose ``checkpoint`` file names the newest.

    Raises:
        ValueError: There is none.
    """
    if path.is_dir():
        note = path / 'checkpoint'
        there = sorted(f.stem for f in path.glob('*.index'))
        if not note.is_file():
            raise ValueError(f"CHECKPOINT {path} is a folder without a file named 'checkpoint'"
                             + (f'; give one of its checkpoints: {", ".join(there)}' if there else ''))
        newest = re.search(r'^model_checkpoint_path: "(.+)"\s*$', note.read_text(errors='replace'), re.MULTILINE)
        if newest is None:
            raise ValueError(f'{note} must have a line model_checkpoint_path: "NAME"')
        prefix = path / newest[1]  # an absolute one replaces the folder
        if not Path(f'{prefix}.index').is_file():
            prefix = path / Path(newest[1]).name  # the folder was moved since
    else:
        file = re.fullmatch(FILE, path.name)
        prefix = path.with_name(file[1]) if file else path
    if not Path(f'{prefix}.index').is_file():
        raise ValueError(f'CHECKPOINT must be a TensorFlow 1 checkpoint, and there is no {prefix}.index')
    return prefix


def _files(prefix: Path) -> List[Path]:
    """Index and data files, all of them."""
    data = sorted(f for f in prefix.parent.iterdir() if re.fullmatch(FILE, f.name) and
                  f.name.startswith(f'{prefix.name}.data-'))
    if not data or len(data) != int(data[0].name[-5:]):
        raise ValueError(f'{prefix.name} has {len(data)} data files of {int(data[0].name[-5:]) if data else 1}')
    return [Path(f'{prefix}.index'), *data]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Nothing on standard error: what TensorFlow says at import, no setting of its own keeps back."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _import_tensorflow() -> Any:
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    try:
        with _no_stderr():
            import tensorflow
    except ImportError as e:
        raise ValueError(f"reading a checkpoint needs TensorFlow: pip install 'timm-assemble[tensorflow]' ({e})") from e
    return tensorflow


class CheckpointVariables(Mapping[str, np.ndarray]):
    """A checkpoint's variables by name, each read when it is asked for, without slots and counters.

    Args:
        reader: TensorFlow's, or what has its three methods: ``get_variable_to_shape_map``,
            ``get_variable_to_dtype_map`` and ``get_tensor``.
        files: The checkpoint's files.
        version: TensorFlow's.
    """

    def __init__(self, reader: Any, files: List[Path], version: str) -> None:
        self._reader = reader
        self.files = files
        self.version = version
        self.set_aside: Counter = Counter()  # what a name ends in -> how many
        self.shapes: Dict[str, Tuple[int, ...]] = {}
        self.read: Dict[str, Dict[str, Any]] = {}  # of each variable read: shape, dtype, checksum of its bytes
        for name, shape in sorted(reader.get_variable_to_shape_map().items()):
            leaf = name.rsplit('/', 1)[-1]
            if name in COUNTERS or (leaf in SLOTS and leaf != name):
                self.set_aside[leaf] += 1
            else:
                self.shapes[name] = tuple(shape)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        try:
            array = np.asarray(self._reader.get_tensor(name))
        except Exception as e:  # TensorFlow's reader raises its own kinds and Python's, by what is broken
            raise ValueError(f'{name} cannot be read from {self.files[0].stem}: {str(e).splitlines()[0]}') from e
        if array.dtype not in (np.float16, np.float32, np.float64):
            raise ValueError(f'{name} must have floating point values, got {array.dtype}')
        digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
        self.read[name] = dict(shape=[*array.shape], dtype=str(array.dtype), sha256=digest)
        return array.astype(np.float32, copy=False)

    def __contains__(self, name: object) -> bool:
        return name in self.shapes  # Mapping's own would read it

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def describe_files(self) -> List[Dict[str, Any]]:
        """Name, size and SHA-256 of each file, for which the files are read in a stream."""
        return [dict(file=f.name, bytes=f.stat().st_size, sha256=_sha256(f)) for f in self.files]


def open_checkpoint(prefix: Path) -> CheckpointVariables:
    """A checkpoint's variables, none of them read yet.

    Args:
        prefix: What :func:`find_checkpoint` gives.

    Raises:
        ValueError: No TensorFlow, a file that is broken or cut off, or a checkpoint of TensorFlow 2's objects.
    """
    files = _files(prefix)
    tf = _import_tensorflow()
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    except Exception as e:  # as above
        raise ValueError(f'{files[0]} cannot be read: {(str(e) or repr(e)).splitlines()[0]}') from e
    if OBJECT_GRAPH in shapes:
        raise ValueError(f'{prefix} is a TensorFlow 2 object checkpoint; the official code writes TensorFlow 1, '
                         f'with variables by name')
    listed = sum(int(np.prod(shape, dtype=np.int64)) * dtypes[name].size for name, shape in shapes.items())
    there = sum(f.stat().st_size for f in files[1:])
    if there < listed:
        raise ValueError(f'{files[1]} is cut off: {there} bytes of the {listed} that the index lists')
    return CheckpointVariables(reader, files, tf.__version__)
