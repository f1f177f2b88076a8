"""The store of a teacher's logits on disk: its layout, reading it, and writing it chunk by chunk.

A folder ``STORE`` holds

- ``store.json``: what the logits belong to, see :class:`StoreInfo`, and whether the store is complete;
- ``logits.npy``: float16 ``(N, C)``, row i for sample i of the data set; or with ``top_k``
  ``values.npy`` float16 ``(N, k)``, ``indices.npy`` uint16 (uint32 from 65,537 classes) ``(N, k)`` and ``rest.npy``
  float16 ``(N,)``, the logit of every other class;
- ``chunks/``, until the store is complete: an empty file for each finished chunk of rows.

The largest logit of each row is subtracted: the softmax does not change, and float16 is finest near 0, where most of
the probability is. A plain ``.npy`` file of shape ``(N, C)`` can be read as well; only N and C can be checked then.
"""
import json
import os
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple, Union

import numpy as np
import torch
from numpy.lib.format import open_memmap

from ..utils.atomic import atomic_file
from .dataset_fingerprint import SampleFingerprint

__all__ = ['StoreInfo', 'TeacherLogits', 'TeacherLogitsWriter', 'shrink']

FORMAT = 'timm_assemble teacher logits 1'
LOWEST = float(np.finfo(np.float16).min)


@dataclass(frozen=True)
class StoreInfo:
    """What the logits of a store belong to. A run resumes a store only if all of it is equal.

    Attributes:
        teacher: Name of the teacher, SHA-256 of its weights, whether it ran in mixed precision.
        preprocessing: Input size, mean, std, interpolation and crop of the teacher's images.
        samples: Data set, a :class:`SampleFingerprint` as a dict.
        num_classes: Logits per sample, C.
        top_k: Number of largest logits stored per row; 0 stores all.
        chunk_size: Rows written at once.
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
        """Return the sample indices of a chunk."""
        return range(index * self.chunk_size, min((index + 1) * self.chunk_size, self.count))

    def arrays(self) -> Dict[str, Tuple[Tuple[int, ...], Any]]:
        """Return the shape and dtype of each array of the store."""
        if not self.top_k:
            return {'logits': ((self.count, self.num_classes), np.float16)}
        index_type = np.uint16 if self.num_classes <= 1 << 16 else np.uint32
        return {'values': ((self.count, self.top_k), np.float16), 'indices': ((self.count, self.top_k), index_type),
                'rest': ((self.count,), np.float16)}


def shrink(logits: torch.Tensor, top_k: int = 0) -> Dict[str, np.ndarray]:
    r"""Convert logits to the arrays of a store.

    The maximum of each row is subtracted. With ``top_k`` the probability of the other :math:`C - k` classes is spread
    evenly: each has the logit :math:`\log \frac{1}{C - k} \sum_{c \notin top} e^{z_c}`.

    Args:
        logits: ``(B, C)``, finite.
        top_k: Number of largest logits to store per row, below C; 0 stores all.

    Returns:
        Arrays by name, float16, see the module's docstring.
    """
    logits = logits.double()
    logits = logits - logits.amax(1, keepdim=True)
    if not top_k:
        return {'logits': logits.clamp(min=LOWEST).half().numpy()}
    values, indices = logits.topk(top_k, dim=1)
    others = logits.scatter(1, indices, float('-inf')).logsumexp(1) - np.log(logits.shape[1] - top_k)
    return {'values': values.clamp(min=LOWEST).half().numpy(), 'indices': indices.numpy(),
            'rest': others.clamp(min=LOWEST).half().numpy()}


def _read_info(folder: Path) -> Tuple[StoreInfo, bool]:
    """Read what a store's logits belong to and whether it is complete."""
    path = folder / 'store.json'
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f'path must be a store of teacher logits, got {folder}, which has no store.json; '
                         f'`timm-assemble teacher-logits` writes a store') from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(f'{path} must be JSON') from None
    names = [field.name for field in fields(StoreInfo)]
    if not isinstance(content, dict) or content.get('format') != FORMAT or not {*names, 'complete'} <= content.keys():
        raise ValueError(f'{path} must have the format {FORMAT!r} with {", ".join(names)} and complete')
    return StoreInfo(**{name: content[name] for name in names}), content['complete']


def _open_array(path: Path, shape: Optional[Tuple[int, ...]] = None, mode: Any = 'r') -> np.ndarray:
    try:
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f'{path} is missing') from None
    except (ValueError, EOFError, OSError) as e:
        raise ValueError(f'{path} must be a complete .npy file: {str(e).splitlines()[0]}') from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f'{path} must hold one array, as an .npy file does')
    if shape is not None and array.shape != shape:
        raise ValueError(f'{path} must have shape {shape}, got {array.shape}')
    return array


class TeacherLogits:
    """Rows of a complete store or of a plain ``.npy`` file, memory-mapped. Worker processes can unpickle it.

    Args:
        path: Folder of a store, or a file of shape ``(N, C)`` in float16, float32 or float64.

    Raises:
        ValueError: ``path`` is not a store, or the store is incomplete or damaged.
    """

    def __init__(self, path: Union[str, Path]) -> None:
        self.path = Path(path)
        self.info: Optional[StoreInfo] = None
        if not str(path) or not self.path.exists():
            raise ValueError(f'path must be a store of teacher logits or an .npy file, got {str(path)!r}, '
                             f'which {"does not exist" if str(path) else "is empty"}')
        if self.path.is_dir():
            self.info, complete = _read_info(self.path)
            if not complete:
                raise ValueError(f'path must be a complete store, got {self.path} with {len(_finished(self.path))} of '
                                 f'{self.info.num_chunks} chunks; resume the teacher-logits command that began it')
            self._arrays = {name: _open_array(self.path / f'{name}.npy', shape)
                            for name, (shape, _) in self.info.arrays().items()}
            self.count, self.num_classes = self.info.count, self.info.num_classes
        else:
            plain = _open_array(self.path)
            if plain.ndim != 2 or plain.dtype.kind != 'f':
                raise ValueError(
                    f'{self.path} must hold floats of shape (N, C), got {plain.dtype} of shape {plain.shape}')
            self._arrays = {'logits': plain}
            self.count, self.num_classes = plain.shape

    def __reduce__(self) -> Any:
        return type(self), (self.path,)  # pickle copies a memory map; a worker maps the files itself

    def __len__(self) -> int:
        return self.count

    def logits(self, index: int) -> torch.Tensor:
        """Return the logits of a sample up to a constant, float32 ``(C,)``."""
        if 'logits' in self._arrays:
            return torch.from_numpy(self._arrays['logits'][index].astype(np.float32))
        row = np.full(self.num_classes, self._arrays['rest'][index], np.float32)
        row[self._arrays['indices'][index]] = self._arrays['values'][index]
        return torch.from_numpy(row)

    def probabilities(self, index: int, temperature: float = 1.0) -> torch.Tensor:
        """Return the softmax of a sample's logits over the temperature, float32 ``(C,)``."""
        return (self.logits(index) / temperature).softmax(0)

    def check(self, samples: SampleFingerprint, num_classes: int) -> None:
        """Check that the rows belong to a data set and fit a student.

        Args:
            samples: Fingerprint of the training data set.
            num_classes: Classes of the student.

        Raises:
            ValueError: They do not; the message says how they differ.
        """
        if self.num_classes != num_classes:
            raise ValueError(f'num_classes must be {self.num_classes}, the classes of {self.path}, got {num_classes}')
        expected = self.info.samples if self.info else {**samples.as_dict(), 'count': self.count}
        difference = SampleFingerprint(**expected).difference(samples)
        if difference is not None:
            raise ValueError(f'samples must be those of {self.path}, got {difference}')


def _finished(folder: Path) -> Set[int]:
    return {int(path.name) for path in folder.glob('chunks/*') if path.name.isdecimal()}


class TeacherLogitsWriter:
    """Writes a store by chunks, in any order and from any number of processes, and resumes one.

    A chunk counts as finished when its rows are on the disk, so that a kill at any moment loses only the chunks in
    progress. One process calls :meth:`prepare` and :meth:`finish` while the others wait.

    Args:
        output: Folder of the store.
        info: What its logits belong to.
    """

    def __init__(self, output: Union[str, Path], info: StoreInfo) -> None:
        self.output = Path(output)
        self.info = info

    def prepare(self) -> None:
        """Create the files of a new store; check those of an existing one.

        Raises:
            ValueError: The folder holds other files, or the store of another run.
        """
        if (self.output / 'store.json').exists():
            existing = asdict(_read_info(self.output)[0])
            for name, wanted in json.loads(json.dumps(asdict(self.info))).items():
                if existing[name] != wanted:
                    raise ValueError(f'output must be a new folder or the store of the same run, got {self.output} '
                                     f'with `{name}` {existing[name]} instead of {wanted}')
            return
        if self.output.exists() and not self.output.is_dir():
            raise ValueError(f'output must be a folder, got the file {self.output}')
        allowed = {'chunks', *(f'{name}.npy' for name in self.info.arrays()), *self._leftovers()}
        if self.output.is_dir() and not {*os.listdir(self.output)} <= allowed:
            raise ValueError(f'output must be a new or empty folder or a store, got {self.output} with other files')
        (self.output / 'chunks').mkdir(parents=True, exist_ok=True)
        for name, (shape, dtype) in self.info.arrays().items():
            open_memmap(self.output / f'{name}.npy', 'w+', dtype=dtype, shape=shape).flush()
        self._write_json(complete=False)

    def _leftovers(self) -> List[str]:
        """Return the temporary folders that killed processes left of writing store.json."""
        return [path.name for path in self.output.glob('.store.json.*.timm-assemble')]

    def _write_json(self, complete: bool) -> None:
        text = json.dumps({'format': FORMAT, 'complete': complete, **asdict(self.info)}, indent=1)
        with atomic_file(self.output / 'store.json') as file:
            file.write_text(text + '\n')

    def missing(self) -> List[int]:
        """Return the chunks that are not finished."""
        complete = _read_info(self.output)[1]
        return [] if complete else sorted({*range(self.info.num_chunks)} - _finished(self.output))

    def write(self, chunk: int, arrays: Dict[str, np.ndarray]) -> None:
        """Write the rows of a chunk and mark it as finished."""
        rows = self.info.chunk(chunk)
        for name, (shape, _) in self.info.arrays().items():
            array: Any = _open_array(self.output / f'{name}.npy', shape, 'r+')
            array[rows.start:rows.stop] = arrays[name]
            array.flush()
        (self.output / 'chunks' / str(chunk)).touch()

    def finish(self) -> None:
        """Mark the store as complete.

        Raises:
            ValueError: Chunks are missing.
        """
        missing = self.missing()  # none if a kill left chunks/ in a complete store
        if missing:
            raise ValueError(f'output must have all chunks before it is complete, got {self.output} without '
                             f'{len(missing)} of {self.info.num_chunks}')
        self._write_json(complete=True)
        for name in ('chunks', *self._leftovers()):
            shutil.rmtree(self.output / name, ignore_errors=True)
