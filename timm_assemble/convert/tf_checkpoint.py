"""Reading of TensorFlow 1 checkpoints, by TensorFlow's own reader and one variable at a time."""
import glob
import hashlib
import os
import re
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Tuple

import numpy as np

from ..errors import UserError, check, error_line, install_extra
from ..runtime.checksum import file_sha256

__all__ = ['CheckpointVariables', 'find_checkpoint', 'open_checkpoint']

SLOTS = ('Momentum', 'Adam', 'Adam_1', 'RMSProp', 'RMSProp_1')  # last part of the names of an optimizer's variables
COUNTERS = ('global_step', 'beta1_power', 'beta2_power')
OBJECT_GRAPH = '_CHECKPOINTABLE_OBJECT_GRAPH'
AVERAGE = 'ExponentialMovingAverage'  # last part of the name of a variable's moving average
FILE = r'(.+?)\.(index|meta|data-\d{5}-of-\d{5})'


def find_checkpoint(checkpoint: Path) -> Path:
    """Return the prefix of a checkpoint's files, which is its name in TensorFlow.

    Args:
        checkpoint: The prefix, one of its files, or a folder whose ``checkpoint`` file names the newest.

    Raises:
        UserError: No checkpoint was found.
    """
    if checkpoint.is_dir():
        newest_file = checkpoint / 'checkpoint'
        if not newest_file.is_file():
            found = ', '.join(sorted(f.stem for f in checkpoint.glob('*.index'))) or 'no checkpoint'
            raise UserError(f"checkpoint must be a prefix or a folder with a file named 'checkpoint', got the folder "
                             f'{checkpoint} with {found}')
        newest = re.search(r'^model_checkpoint_path: "(.+)"\s*$', newest_file.read_text(errors='replace'), re.MULTILINE)
        if newest is None:
            raise UserError(f'checkpoint must have a line model_checkpoint_path: "NAME" in {newest_file}')
        prefix = checkpoint / newest[1]  # an absolute path replaces the folder
        if not Path(f'{prefix}.index').is_file():
            prefix = checkpoint / re.split(r'[\\/]+', newest[1])[-1]  # the folder was moved since, perhaps from Windows
    else:
        file = re.fullmatch(FILE, checkpoint.name)
        prefix = checkpoint.with_name(file[1]) if file else checkpoint
    if not Path(f'{prefix}.index').is_file():
        raise UserError(f'checkpoint must be a TensorFlow 1 checkpoint, and {prefix}.index does not exist')
    return prefix


def _files(prefix: Path) -> List[Path]:
    """Return the index file and all data files."""
    data = sorted(prefix.parent.glob(f'{glob.escape(prefix.name)}.data-?????-of-?????'))
    expected = int(data[0].name[-5:]) if data else 1
    if len(data) != expected:
        raise UserError(f'prefix must have all data files, got {len(data)} of {expected} for {prefix}')
    return [Path(f'{prefix}.index'), *data]


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Discard standard error: none of TensorFlow's settings silences its messages at import."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def _import_tensorflow() -> Any:
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    try:
        with _no_stderr():
            import tensorflow
    except ImportError as e:
        raise UserError(f'reading a checkpoint needs TensorFlow: {install_extra("tensorflow")} ({e})') from e
    return tensorflow


class CheckpointVariables(Mapping[str, np.ndarray]):
    """A checkpoint's variables by name, without optimizer slots and counters; each is read on access.

    Args:
        reader: TensorFlow's reader, or an object with its methods ``get_variable_to_shape_map`` and ``get_tensor``.
        files: The checkpoint's files.
        version: TensorFlow's version.
        moving_averages: Read the moving averages of variables that have one.

    Attributes:
        shapes: Shape of each variable.
        skipped: Number of skipped slots, counters and others by what they are.
        read: Shape, dtype and SHA-256 of each variable that was read.

    Raises:
        UserError: The checkpoint has no moving averages to read, or nothing else, or unprintable names.
    """

    def __init__(self, reader: Any, files: List[Path], version: str, moving_averages: bool = False) -> None:
        self._reader = reader
        self.files = files
        self.version = version
        self.skipped: Counter = Counter()
        self.shapes: Dict[str, Tuple[int, ...]] = {}
        self.read: Dict[str, Dict[str, Any]] = {}
        shapes = reader.get_variable_to_shape_map()
        averaged = {name.removesuffix(f'/{AVERAGE}') for name in shapes if name.endswith(f'/{AVERAGE}')}
        self._suffix = {name: f'/{AVERAGE}' for name in averaged} if moving_averages else {}
        for name, shape in sorted(shapes.items()):
            leaf = name.rsplit('/', 1)[-1]
            check(name.isprintable(), 'checkpoint', name, 'without control characters in the names of variables')
            if name in COUNTERS or (leaf in SLOTS and leaf != name):
                self.skipped[leaf] += 1
            elif leaf == AVERAGE and not moving_averages:
                self.skipped['moving averages'] += 1
            elif name in self._suffix:
                self.skipped['values beside their moving averages'] += 1
            else:
                self.shapes[name.removesuffix(f'/{AVERAGE}')] = tuple(shape)
        alone = sorted(averaged.difference(self.shapes))
        if alone:
            raise UserError(f'moving_averages must be given, because {len(alone)} variables have nothing else, such as '
                            f'{alone[0]}')
        if moving_averages and not averaged:
            raise UserError('moving_averages must not be given: the checkpoint has none')

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        stored = name + self._suffix.get(name, '')
        try:
            array = np.asarray(self._reader.get_tensor(stored))
        except Exception as e:  # TensorFlow's reader raises its own types and Python's
            raise UserError(f'{name} cannot be read from {self.files[0].stem}: {error_line(e)}') from e
        if array.dtype not in (np.float16, np.float32, np.float64):
            raise UserError(f'{name} must have floating point values, got {array.dtype}')
        digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
        self.read[name] = dict(shape=[*array.shape], dtype=str(array.dtype), sha256=digest)
        if stored != name:
            self.read[name]['stored'] = stored
        return array.astype(np.float32, copy=False)

    def __contains__(self, name: object) -> bool:
        return name in self.shapes  # Mapping's own would read the variable

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def describe_files(self) -> List[Dict[str, Any]]:
        """Return name, size and SHA-256 of each file."""
        return [dict(file=f.name, bytes=f.stat().st_size, sha256=file_sha256(f)) for f in self.files]


def open_checkpoint(prefix: Path, moving_averages: bool = False) -> CheckpointVariables:
    """Return a checkpoint's variables; none is read yet.

    Args:
        prefix: Prefix of the files, from :func:`find_checkpoint`.
        moving_averages: Read the moving averages of variables that have one.

    Raises:
        UserError: TensorFlow is missing, a file is broken or cut off, or the checkpoint is TensorFlow 2's.
    """
    files = _files(prefix)
    tf = _import_tensorflow()
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    except Exception as e:  # as above
        raise UserError(f'{files[0]} cannot be read: {error_line(e)}') from e
    if OBJECT_GRAPH in shapes:
        raise UserError(f'prefix must be a TensorFlow 1 checkpoint, got the TensorFlow 2 object checkpoint {prefix}')
    expected = sum(int(np.prod(shape, dtype=np.int64)) * dtypes[name].size for name, shape in shapes.items())
    size = sum(f.stat().st_size for f in files[1:])
    if size < expected:
        raise UserError(f'{files[1]} is cut off: {size} bytes of {expected}')
    return CheckpointVariables(reader, files, tf.__version__, moving_averages)
