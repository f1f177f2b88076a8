"""The store of a teacher's logits on disk: its layout, reading it, and writing it chunk by chunk.

A folder ``STORE`` holds

- ``store.json``: what it is of, see :class:`StoreInfo`, and whether it is complete;
- ``logits.npy``: float16 ``(N, C)``, row i for sample i of the data set; or with ``top_k``
  ``values.npy`` float16 ``(N, k)``, ``indices.npy`` uint16 (uint32 from 65,536 classes) ``(N, k)`` and ``rest.npy``
  float16 ``(N,)``, the logit that each other class has;
- ``chunks/``, only while it is not complete: an empty file for each finished chunk of rows.

Each row is less its largest logit: the softmax does not see it, and float16 is finest near 0, where the probability is.
A plain ``.npy`` of shape ``(N, C)`` is read as well, without a check of what it is of but for N and C.

Knows numpy and torch alone.
"""
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np
import torch
from numpy.lib.format import open_memmap

from .dataset_fingerprint import SampleFingerprint

__all__ = ['StoreInfo', 'TeacherLogits', 'TeacherLogitsWriter', 'shrink']

FORMAT = 'timm_assemble teacher logits 1'
LOWEST = float(np.finfo(np.float16).min)


@dataclass(frozen=True)
class StoreInfo:
    """What a store is of; all of it must be equal for a run to go on with it.

    Attributes:
        teacher: Name of the teacher, SHA-256 of its weights, precision it ran in.
        preprocessing: Input size, mean, std, interpolation, crop of its pictures.
        samples: Data set, a :class:`SampleFingerprint` as a dict.
        num_classes: Logits of a sample, C.
        top_k: Largest logits kept of each row; 0 keeps all.
        chunk_size: Rows that are written as one.
    """

    teacher: Dict[str, Any]
    preprocessing: Dict[str, Any]
    samples: Dict[str, Any]
    num_classes: int
    top_k: int = 0
    chunk_size: int = 1024

    @property
    def count(self) -> int:
        return int(self.samples['count'])

    @property
    def num_chunks(self) -> int:
        return -(-self.count // self.chunk_size)

    def chunk(self, index: int) -> range:
        """The samples of a chunk."""
        return range(index * self.chunk_size, min((index + 1) * self.chunk_size, self.count))

    def arrays(self) -> Dict[str, Tuple[Tuple[int, ...], Any]]:
        """Shape and dtype of each array of the store."""
        if not self.top_k:
            return {'logits': ((self.count, self.num_classes), np.float16)}
        index_type = np.uint16 if self.num_classes <= 1 << 16 else np.uint32
        return {'values': ((self.count, self.top_k), np.float16), 'indices': ((self.count, self.top_k), index_type),
                'rest': ((self.count,), np.float16)}


def shrink(logits: torch.Tensor, top_k: int = 0) -> Dict[str, np.ndarray]:
    r"""Logits to the arrays of a store.

    Each row is less its maximum. With ``top_k`` the other :math:`C - k` classes share their probability evenly: each
    has the logit :math:`\log \frac{1}{C - k} \sum_{c \notin top} e^{z_c}`.

    Args:
        logits: ``(B, C)``, finite.
        top_k: Logits to keep of each row, below C; 0 for all.

    Returns:
        Arrays by name, as in the module's text, float16.
    """
    logits = logits.double()
    logits = logits - logits.amax(1, keepdim=True)
    if not top_k:
        return {'logits': logits.clamp(min=LOWEST).half().numpy()}
    values, indices = logits.topk(top_k, dim=1)
    others = logits.scatter(1, indices, float('-inf')).logsumexp(1) - np.log(logits.shape[1] - top_k)
    return {'values': values.clamp(min=LOWEST).half().numpy(), 'indices': indices.numpy(),
            'rest': others.clamp(min=LOWEST).half().numpy()}


def _read_json(folder: Path) -> Dict[str, Any]:
    path = folder / 'store.json'
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f'{folder} is no store of teacher logits: it has no store.json; '
                         f'timm-assemble teacher-logits makes one') from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(f'{path} cannot be read: it is not JSON') from None
    names = {field.name for field in fields(StoreInfo)}
    if not isinstance(content, dict) or content.get('format') != FORMAT or not names <= content.keys():
        raise ValueError(f'{path} must be of the format {FORMAT!r} with {", ".join(sorted(names))}')
    return content


def _info(content: Dict[str, Any]) -> StoreInfo:
    return StoreInfo(**{field.name: content[field.name] for field in fields(StoreInfo)})


def _open_array(path: Path, shape: Optional[Tuple[int, ...]], mode: Any = 'r') -> np.ndarray:
    try:
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f'{path} is missing') from None
    except (ValueError, EOFError, OSError) as e:
        raise ValueError(f'{path} is truncated or no .npy file: {str(e).splitlines()[0]}') from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f'{path} must be one array, an .npy file')
    if shape is not None and array.shape != shape:
        raise ValueError(f'{path} must have shape {shape}, got {array.shape}')
    return array


class TeacherLogits:
    """Rows of a complete store, or of a plain ``.npy``, memory-mapped; safe to send to worker processes.

    Args:
        path: Folder of a store, or a file of shape ``(N, C)``, float16, float32 or float64.

    Raises:
        ValueError: No store there, or not a whole one.
    """

    def __init__(self, path: Union[str, Path]) -> None:
        self.path = Path(path)
        self.info: Optional[StoreInfo] = None
        if not self.path.exists():
            raise ValueError(f'{self.path} must be a store of teacher logits or an .npy file; there is nothing')
        if self.path.is_dir():
            content = _read_json(self.path)
            self.info = _info(content)
            if not content['complete']:
                done = len(_finished(self.path))
                raise ValueError(f'{self.path} is not complete, {done} of {self.info.num_chunks} chunks are there: '
                                 f'run the teacher-logits command that began it again')
        self._arrays: Optional[Dict[str, np.ndarray]] = None
        arrays = self._open()
        if self.info is None:
            plain = arrays['logits']
            if plain.ndim != 2 or plain.dtype.kind != 'f':
                raise ValueError(
                    f'{self.path} must hold floats of shape (N, C), got {plain.dtype} of shape {plain.shape}')
            self.count, self.num_classes = plain.shape
        else:
            self.count, self.num_classes = self.info.count, self.info.num_classes

    def _open(self) -> Dict[str, np.ndarray]:
        if self._arrays is None:
            if self.info is None:
                self._arrays = {'logits': _open_array(self.path, None)}
            else:
                self._arrays = {name: _open_array(self.path / f'{name}.npy', shape)
                                for name, (shape, _) in self.info.arrays().items()}
        return self._arrays

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, '_arrays': None}  # a worker maps the files itself; pickled, a map is a whole copy

    def __len__(self) -> int:
        return self.count

    def logits(self, index: int) -> torch.Tensor:
        """float32 ``(C,)``: the logits of a sample up to a constant."""
        arrays = self._open()
        if 'logits' in arrays:
            return torch.from_numpy(arrays['logits'][index].astype(np.float32))
        row = torch.full((self.num_classes,), float(arrays['rest'][index]))
        row[torch.from_numpy(arrays['indices'][index].astype(np.int64))] = torch.from_numpy(
            arrays['values'][index].astype(np.float32))
        return row

    def probabilities(self, index: int, temperature: float = 1.0) -> torch.Tensor:
        """float32 ``(C,)``: softmax of a sample's logits over the temperature."""
        return (self.logits(index) / temperature).softmax(0)

    def check(self, samples: SampleFingerprint, num_classes: int) -> None:
        """Whether the rows are those of a data set and a student.

        Args:
            samples: The data set's.
            num_classes: Classes of the student.

        Raises:
            ValueError: They are not; the message says in what.
        """
        if self.num_classes != num_classes:
            raise ValueError(f'{self.path} has logits of {self.num_classes} classes, the model has {num_classes}')
        if self.info is not None:
            difference = SampleFingerprint(**self.info.samples).difference(samples)
        else:
            difference = None if samples.count == self.count else f'{samples.count} samples, not {self.count}'
        if difference is not None:
            raise ValueError(f'{self.path} was made from another data set: the training data has {difference}')


def _finished(folder: Path) -> List[int]:
    if not (folder / 'chunks').is_dir():
        return []
    return sorted(int(name) for name in os.listdir(folder / 'chunks') if name.isdecimal())


def _replace_json(folder: Path, info: StoreInfo, complete: bool) -> None:
    text = json.dumps({'format': FORMAT, 'complete': complete, **asdict(info)}, indent=1)
    new = folder / 'store.json.new'
    with open(new, 'w') as f:
        f.write(text + '\n')
        f.flush()
        os.fsync(f.fileno())
    os.replace(new, folder / 'store.json')


class TeacherLogitsWriter:
    """Makes a store, or goes on with one, by chunks in any order and from any number of processes.

    A chunk counts as finished when its rows are on the disk, so that a kill at any moment loses those of the chunks in
    work. :meth:`prepare` and :meth:`finish` are for one process while the others wait.

    Args:
        folder: Folder of the store.
        info: What it is of.
    """

    def __init__(self, folder: Union[str, Path], info: StoreInfo) -> None:
        self.folder = Path(folder)
        self.info = info

    def prepare(self) -> None:
        """Make the files, if they are not there yet.

        Raises:
            ValueError: The folder holds something else, or a store of something else.
        """
        if (self.folder / 'store.json').exists():
            content = _read_json(self.folder)
            there, wanted = asdict(_info(content)), json.loads(json.dumps(asdict(self.info)))
            other = [name for name in wanted if there[name] != wanted[name]]
            if other:
                raise ValueError(f'{self.folder} holds logits of another run, with {other[0]} {there[other[0]]}, not '
                                 f'{wanted[other[0]]}: choose another folder')
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f'{self.folder} must be a folder, and is a file')
        allowed = {f'{name}.npy' for name in self.info.arrays()} | {'chunks', 'store.json.new'}
        if self.folder.is_dir() and not set(os.listdir(self.folder)) <= allowed:
            raise ValueError(f'{self.folder} must be new, empty, or a store of teacher logits; it holds other things')
        (self.folder / 'chunks').mkdir(parents=True, exist_ok=True)
        for name, (shape, dtype) in self.info.arrays().items():
            open_memmap(self.folder / f'{name}.npy', 'w+', dtype=dtype, shape=shape).flush()
        _replace_json(self.folder, self.info, complete=False)

    @property
    def complete(self) -> bool:
        return bool(_read_json(self.folder)['complete'])

    def missing(self) -> List[int]:
        """Chunks that are not finished."""
        return [] if self.complete else sorted(set(range(self.info.num_chunks)) - set(_finished(self.folder)))

    def write(self, chunk: int, arrays: Dict[str, np.ndarray]) -> None:
        """Write the rows of a chunk, and count it as finished."""
        rows = self.info.chunk(chunk)
        for name, (shape, _) in self.info.arrays().items():
            array: Any = _open_array(self.folder / f'{name}.npy', shape, 'r+')
            array[rows.start:rows.stop] = arrays[name]
            array.flush()
        (self.folder / 'chunks' / str(chunk)).touch()

    def finish(self) -> None:
        """Declare the store complete, when no chunk is missing."""
        missing = self.missing()  # none in a store that a kill has left complete with its chunks/ there
        if missing:
            raise ValueError(f'{self.folder} is not complete, {len(missing)} chunks are missing')
        _replace_json(self.folder, self.info, complete=True)
        if (self.folder / 'chunks').is_dir():
            for chunk in _finished(self.folder):
                (self.folder / 'chunks' / str(chunk)).unlink()
            (self.folder / 'chunks').rmdir()
