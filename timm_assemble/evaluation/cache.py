"""Cached arrays: one .npz file for each identity, written atomically; a damaged file counts as missing."""
import hashlib
import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np

from ..runtime.atomic import atomic_file

__all__ = ['DAMAGED', 'cache_file', 'read_cached', 'write_arrays', 'write_cached']

DATE = (1980, 1, 1, 0, 0, 0)  # of all entries, so that equal arrays are equal files
Arrays = Dict[str, np.ndarray]
# what reading a damaged file raises
DAMAGED = (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def write_arrays(path: Path, arrays: Arrays, compress: bool = True) -> None:
    """Write an .npz file for ``np.load``, atomically; equal arrays give equal bytes."""
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with atomic_file(path) as temporary:
        with zipfile.ZipFile(temporary, 'w', method, compresslevel=1) as file:
            for name, array in arrays.items():
                entry = zipfile.ZipInfo(f'{name}.npy', DATE)
                entry.compress_type = method
                with file.open(entry, 'w', force_zip64=True) as part:
                    np.lib.format.write_array(part, np.asarray(array), allow_pickle=False)


def _read_arrays(path: Path) -> Arrays:
    """Read an .npz file whole: unlike ``np.load``, this checks the checksum of each array."""
    with zipfile.ZipFile(path) as file:
        return {name.removesuffix('.npy'): np.lib.format.read_array(io.BytesIO(file.read(name)), allow_pickle=False)
                for name in file.namelist()}


def cache_file(folder: Path, identity: Any) -> Path:
    """Return the file of what has this identity, a value of JSON."""
    text = json.dumps(identity, sort_keys=True)
    return folder / f'{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz'


def write_cached(folder: Path, identity: Any, arrays: Arrays, about: Dict[str, Any], compress: bool = True) -> None:
    """Store arrays and what is known about them, a value of JSON, under their identity."""
    write_arrays(cache_file(folder, identity),
                 dict(arrays, about=np.array(json.dumps(dict(identity=identity, **about)))), compress)


def read_cached(folder: Path, identity: Any) -> Optional[Tuple[Arrays, Dict[str, Any]]]:
    """Return the arrays of this identity and what is known about them; None for none. Raises one of ``DAMAGED``."""
    arrays = _read_arrays(cache_file(folder, identity))
    about = json.loads(str(arrays.pop('about')))
    return (arrays, about) if about['identity'] == identity else None
