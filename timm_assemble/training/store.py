"""A store of teacher rows on disk: what it belongs to, its arrays, and writing it unit by unit.

A folder holds ``store.json``, memory-mapped ``.npy`` files and, until it is complete, ``chunks/`` with an empty file
for each finished unit. :mod:`.logit_store` and :mod:`.view_store` say what is in the files.
"""
import json
import os
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Mapping, Optional, Sequence, Set, Tuple, Type, Union

import numpy as np
import torch
from numpy.lib.format import open_memmap

from ..errors import UserError, error_line
from ..runtime.atomic import atomic_file
from ..data.fingerprint import SampleFingerprint
from ..data.samples import Samples

__all__ = [
    'StoreInfo', 'StoreWriter', 'check_content', 'check_rows', 'check_samples', 'expand', 'open_array',
    'read_complete', 'read_info', 'shrink', 'store_path']

BLOCK = 4096  # rows that are checked at once
LOWEST = float(np.finfo(np.float16).min)


@dataclass(frozen=True)
class StoreInfo:
    """What the rows of a store belong to. A run resumes a store only if all of it is equal.

    Attributes:
        teacher: Name of the teacher, SHA-256 of its weights, whether it ran in mixed precision.
        preprocessing: Input size, mean, std, interpolation and crop of the teacher's images.
        samples: Data set, a :class:`SampleFingerprint` as a dict.
        num_classes: Logits per sample, C.
        top_k: Number of largest logits stored per row; 0 stores all.
        chunk_size: Rows written at once.
        verify_content: Whether ``checksum`` covers whole files, instead of their ends.
    """

    CONTENT: ClassVar[str] = 'logits'
    UNIT: ClassVar[str] = 'image'
    FORMAT: ClassVar[str] = 'timm_assemble teacher logits 2'
    GROWS: ClassVar[Tuple[str, ...]] = ()  # fields that a later run may increase

    teacher: Dict[str, Any]
    preprocessing: Dict[str, Any]
    samples: Dict[str, Any]
    num_classes: int
    top_k: int = 0
    chunk_size: int = 1024
    verify_content: bool = False

    @property
    def count(self) -> int:
        return int(self.samples['count'])

    @property
    def num_chunks(self) -> int:
        return -(-self.count // self.chunk_size)

    def chunk(self, index: int) -> range:
        """Return the sample indices of a chunk."""
        return range(index * self.chunk_size, min((index + 1) * self.chunk_size, self.count))

    @property
    def num_units(self) -> int:
        """Number of units; a unit is written at once and marked as finished."""
        return self.num_chunks

    def keys(self, unit: int) -> Sequence[Any]:
        """Return what the unit's rows are of: sample indices."""
        return self.chunk(unit)

    def row_fields(self) -> Dict[str, Tuple[Tuple[int, ...], Any]]:
        """Return the shape and dtype of each part of a row."""
        if not self.top_k:
            return {'logits': ((self.num_classes,), np.float16)}
        index_type = np.uint16 if self.num_classes <= 1 << 16 else np.uint32
        return {'values': ((self.top_k,), np.float16), 'indices': ((self.top_k,), index_type),
                'rest': ((), np.float16)}

    def arrays(self) -> Dict[str, Tuple[Tuple[int, ...], Any]]:
        """Return the shape and dtype of each file of the store."""
        rows = {name: ((self.count, *shape), dtype) for name, (shape, dtype) in self.row_fields().items()}
        return {**rows, 'checksum': ((self.count,), np.uint32)}

    def pack(
            self, unit: int, logits: torch.Tensor, seeds: torch.Tensor, checksums: torch.Tensor,
    ) -> Dict[str, np.ndarray]:
        """Return the rows of a unit for each file that has them.

        Args:
            unit: Number of the unit.
            logits: Logits of its keys, ``(B, C)``.
            seeds: Seeds of the views, in a store of views.
            checksums: Checksums of the files, or of the views' pixels.
        """
        return {**shrink(logits, self.top_k), 'checksum': checksums.numpy()}


def difference(own: Any, other: Any, name: str = '') -> Optional[Tuple[str, Any, Any]]:
    """Return the name and both values of the first entry that differs, None if none does; also inside dictionaries."""
    if not (isinstance(own, dict) or isinstance(other, dict)):
        return None if own == other else (name, own, other)
    own, other = own or {}, other or {}
    return next(filter(None, (difference(own.get(key), other.get(key), key) for key in {**own, **other})), None)


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


def expand(row: Mapping[str, Any], num_classes: int, top_k: int) -> torch.Tensor:
    """Return the logits of a row of :func:`shrink`, up to a constant, float32 ``(C,)``."""
    if not top_k:
        return torch.from_numpy(np.array(row['logits'], np.float32))  # a copy: memory maps are read-only
    logits = np.full(num_classes, row['rest'], np.float32)
    logits[row['indices']] = row['values']
    return torch.from_numpy(logits)


def check_rows(path: Path, rows: Any, num_classes: int, progress: bool = True) -> None:
    """Check that every row is a teacher's: finite, with classes that exist, and not the zeros of a lost block.

    Args:
        path: For errors.
        rows: Arrays by the names of :func:`shrink`, or an array with these fields; ``(N, ...)``.
        num_classes: Number of classes.
        progress: Show a bar if it takes long.

    Raises:
        UserError: A row is not; the message has its number.
    """
    from tqdm import tqdm

    # a view's seed and checksum tell a lost record from a teacher that does not prefer any class
    names = list(rows.dtype.names) if isinstance(rows, np.ndarray) else [name for name in rows if name != 'checksum']
    count = len(rows[names[0]])
    for start in tqdm(range(0, count, BLOCK), f'checking {path.name}', delay=2, disable=not progress):
        block = {name: np.asarray(rows[name][start:start + BLOCK]) for name in names}
        block = {name: part.reshape(len(part), -1) for name, part in block.items()}
        faults = {'finite values': ~np.all([np.isfinite(part).all(1) for part in block.values()], 0),
                  'values other than zeros': np.all([(part == 0).all(1) for part in block.values()], 0)}
        if 'indices' in block:
            order = np.sort(block['indices'], 1)
            faults[f'different indices below {num_classes}'] = (
                (order[:, -1] >= num_classes) | (order[:, 1:] == order[:, :-1]).any(1))
        for expected, bad in faults.items():
            if bad.any():
                raise UserError(f'{path} must have {expected} in every row, got others in row {start + bad.argmax()}')


def store_path(path: Union[str, Path], what: str) -> Path:
    """Return the path of a store; raise UserError, which calls it ``what``, if there is nothing."""
    if not str(path) or not Path(path).exists():
        state = 'does not exist' if str(path) else 'is empty'
        raise UserError(f'path must be {what}, got {str(path)!r}, which {state}')
    return Path(path)


def read_info(folder: Path, kind: Type[StoreInfo] = StoreInfo) -> Tuple[StoreInfo, bool]:
    """Read what a store's logits belong to and whether it is complete.

    Args:
        folder: Folder of the store.
        kind: Class of the store's content.

    Raises:
        UserError: The folder is not a store of that kind.
    """
    path = folder / 'store.json'
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f'path must be a store of teacher {kind.CONTENT}, got {folder}, which has no store.json; '
                         f'`timm-assemble teacher-logits` writes a store') from None
    except OSError as e:
        raise UserError(f'path must be a store of teacher {kind.CONTENT}, got {folder}: {e.strerror or e}') from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f'{path} must be JSON') from None
    names = [field.name for field in fields(kind)]
    found = content.get('format') if isinstance(content, dict) else None
    if found != kind.FORMAT:
        raise UserError(f'{path} must have the format {kind.FORMAT!r}, got {found!r}')
    if not {*names, 'complete'} <= content.keys():
        raise UserError(f'{path} must have {", ".join(names)} and complete')
    return kind(**{name: content[name] for name in names}), content['complete']


def open_array(path: Path, shape: Optional[Tuple[int, ...]] = None, dtype: Any = None, mode: Any = 'r') -> np.ndarray:
    """Map an ``.npy`` file into memory.

    Raises:
        UserError: It is missing, damaged, or of another shape or dtype.
    """
    try:
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f'{path} is missing') from None
    except (ValueError, EOFError, OSError) as e:
        raise UserError(f'{path} must be a complete .npy file: {error_line(e)}') from None
    if not isinstance(array, np.ndarray):
        raise UserError(f'{path} must hold one array, as an .npy file does')
    if shape is not None and array.shape != shape:
        raise UserError(f'{path} must have shape {shape}, got {array.shape}')
    if dtype is not None and array.dtype != dtype:
        raise UserError(f'{path} must hold {np.dtype(dtype)}, got {array.dtype}')
    return array


def check_samples(path: Path, info: StoreInfo, samples: SampleFingerprint, num_classes: int) -> None:
    """Check that a store belongs to a data set and fits a student; see :meth:`TeacherLogits.check`."""
    if info.num_classes != num_classes:
        raise UserError(f'num_classes must be {info.num_classes}, the classes of {path}, got {num_classes}')
    difference = SampleFingerprint(**info.samples).difference(samples)
    if difference is not None:
        raise UserError(f'samples must be those of {path}, got {difference}')


def check_content(
        samples: Samples, indices: Sequence[int], checksums: Any, info: StoreInfo, parameter: str, path: Path) -> None:
    """Raise UserError with ``parameter`` if the content of a sample changed since ``path`` was written."""
    changed = samples.changed(indices, checksums, info.verify_content)
    if changed:
        raise UserError(f'{parameter} must have the content of {path}, got other content of {len(changed)} of '
                        f'{len(indices)} images, such as {samples.name(changed[0])}; write the store again')


def read_complete(folder: Path, kind: Type[StoreInfo] = StoreInfo) -> StoreInfo:
    """Read what a store's logits belong to; UserError also if it is not complete."""
    info, complete = read_info(folder, kind)
    if not complete:
        raise UserError(f'path must be a complete store, got {folder} with {len(_finished(folder))} of '
                        f'{info.num_units} chunks; resume the teacher-logits command that began it')
    return info


def _finished(folder: Path) -> Set[int]:
    return {int(path.name) for path in folder.glob('chunks/*') if path.name.isdecimal()}


class StoreWriter:
    """Writes a store unit by unit, in any order and from any number of processes, resumes one, and adds views to one.

    A unit, a chunk of rows, counts as finished when it is on the disk, so that a kill at any moment loses only the
    units in progress. One process calls :meth:`prepare` and :meth:`finish` while the others wait.

    Args:
        output: Folder of the store.
        info: What its rows belong to.
    """

    def __init__(self, output: Union[str, Path], info: StoreInfo) -> None:
        self.output = Path(output)
        self.info = info

    def _complete_units(self) -> int:
        """Return the number of units that are known to be finished, those of a complete store."""
        info, complete = read_info(self.output, type(self.info))
        return info.num_units if complete else 0

    def prepare(self) -> None:
        """Create the files of a new store; check those of an existing one.

        Raises:
            UserError: The folder holds other files, or the store of another run.
        """
        exists = (self.output / 'store.json').exists()
        if exists:
            existing = asdict(read_info(self.output, type(self.info))[0])
            for name, wanted in json.loads(json.dumps(asdict(self.info))).items():
                found = None if name in self.info.GROWS else difference(existing[name], wanted, name)
                if found:
                    entry = '' if found[0] == name else f'{name}: '
                    raise UserError(f'output must be a new folder or the store of the same run, got {self.output} '
                                     f'with {entry}`{found[0]}` {found[1]} instead of {found[2]}')
        elif self.output.exists() and not self.output.is_dir():
            raise UserError(f'output must be a folder, got the file {self.output}')
        allowed = {'chunks', *(f'{name}.npy' for name in self.info.arrays()), *self._leftovers()}
        if not exists and self.output.is_dir() and not {*os.listdir(self.output)} <= allowed:
            raise UserError(f'output must be a new or empty folder or a store, got {self.output} with other files')
        if exists and self._complete_units() >= self.info.num_units:
            return
        (self.output / 'chunks').mkdir(parents=True, exist_ok=True)
        for name, (shape, dtype) in self.info.arrays().items():
            path = self.output / f'{name}.npy'
            if not (exists and path.exists()):
                with atomic_file(path) as file:
                    open_memmap(file, 'w+', dtype=dtype, shape=shape).flush()
        if not exists:
            self._write_json(complete=False)

    def _leftovers(self) -> List[str]:
        """Return the temporary folders that killed processes left of writing files."""
        return [path.name for path in self.output.glob('.*.timm-assemble')]

    def _write_json(self, complete: bool) -> None:
        text = json.dumps({'format': self.info.FORMAT, 'complete': complete, **asdict(self.info)}, indent=1)
        with atomic_file(self.output / 'store.json') as file:
            file.write_text(text + '\n')

    def missing(self) -> List[int]:
        """Return the units that are not finished."""
        units = range(self._complete_units(), self.info.num_units)
        return sorted({*units} - _finished(self.output))

    def checksums(self) -> np.ndarray:
        """Return the checksums of the samples' content, in a store of logits."""
        return open_array(self.output / 'checksum.npy', *self.info.arrays()['checksum'])

    def write(self, unit: int, arrays: Dict[str, np.ndarray]) -> None:
        """Write the rows of a unit, as :meth:`StoreInfo.pack` returns them, and mark it as finished."""
        rows = self.info.chunk(unit % self.info.num_chunks)
        for name, values in arrays.items():
            array: Any = open_array(self.output / f'{name}.npy', *self.info.arrays()[name], mode='r+')
            array[rows.start:rows.stop] = values
            array.flush()
        (self.output / 'chunks' / str(unit)).touch()

    def finish(self) -> None:
        """Mark the store as complete.

        Raises:
            UserError: Units are missing.
        """
        missing = self.missing()  # none if a kill left chunks/ in a complete store
        if missing:
            raise UserError(f'output must have all chunks before it is complete, got {self.output} without '
                             f'{len(missing)} of {self.info.num_units}')
        if self._complete_units() < self.info.num_units:
            self._write_json(complete=True)
        for name in ('chunks', *self._leftovers()):
            shutil.rmtree(self.output / name, ignore_errors=True)
