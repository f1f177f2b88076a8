"""Embeddings of files, computed and cached in chunks, so that a kill loses only the current one.

Chunks and the batches within them do not depend on ranks, workers and kills, so the embeddings do not either. Under
torchrun each rank takes every ``world_size``-th chunk of each model. The ranks share the cache's folder.
"""
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np
import torch

from ..errors import UserError
from ..evaluation.cache import DAMAGED, read_cached, write_cached
from ..evaluation.image_files import Batch, FileDataset, FileList, Unreadable, batches, can_be_read, read_image
from ..runtime.ranks import Ranks
from .embedders import Embedder, compute_embeddings

__all__ = ['CHUNK', 'EmbeddingCache', 'Embedded', 'embed_files']

CHUNK = 256  # images


class Embedded(NamedTuple):
    """(M, D) embeddings of the files that can be read, and their (M,) numbers in the file list."""

    embeddings: np.ndarray
    items: np.ndarray


class Chunk(NamedTuple):
    """Embeddings of some files, and those of them that cannot be read."""

    embeddings: np.ndarray
    items: np.ndarray
    unreadable: Tuple[Unreadable, ...]


class EmbeddingCache:
    """Embeddings by model and chunk of a file list, in atomically written files."""

    def __init__(self, folder: Path, files: FileList, precision: str):
        self.folder, self.files, self.precision = folder, files, precision
        self.starts = range(0, len(files.files), CHUNK)
        folder.mkdir(parents=True, exist_ok=True)

    def size(self, start: int) -> int:
        """Return the number of files of a chunk."""
        return min(CHUNK, len(self.files.files) - start)

    def identity(self, embedder: Embedder, start: int = 0) -> Dict[str, Any]:
        """Return all that decides the embeddings of a chunk."""
        return dict(kind='embeddings', model=embedder.identity, data=self.files.fingerprint, precision=self.precision,
                    start=start, chunk=CHUNK)

    def get(self, embedder: Embedder, start: int) -> Optional[Chunk]:
        """Return a chunk; None if it is missing, damaged, or lacks a file that can be read now."""
        try:
            cached = read_cached(self.folder, self.identity(embedder, start))
            if cached is None:
                return None
            arrays, about = cached
            unreadable = tuple(Unreadable(self.files.folder / self.files.files[item][0], item, reason)
                               for item, reason in about['unreadable'])
            chunk = Chunk(arrays['embeddings'], arrays['items'], unreadable)
            if len(chunk.items) and chunk.embeddings.shape != (len(chunk.items), embedder.details['dimensions']):
                return None
        except DAMAGED:
            return None
        return None if any(can_be_read(read_image, file.path) for file in unreadable) else chunk

    def put(self, embedder: Embedder, start: int, parts: Sequence[np.ndarray], read: Sequence[Batch]) -> None:
        """Store a chunk, from its batches and their embeddings."""
        items = np.array([item for batch in read for item in batch.items], dtype=np.int32)
        embeddings = np.concatenate([*parts, np.empty((0, embedder.details['dimensions']), np.float32)])
        write_cached(self.folder, self.identity(embedder, start), dict(embeddings=embeddings, items=items),
                     dict(unreadable=[(file.item, file.reason) for batch in read for file in batch.unreadable]),
                     compress=False)  # floats hardly get smaller

    def unreadable(self, embedder: Embedder) -> List[Unreadable]:
        """Return the files that cannot be read; ValueError if a chunk is missing."""
        return [file for start in self.starts for file in self._chunk(embedder, start).unreadable]

    def _chunk(self, embedder: Embedder, start: int) -> Chunk:
        chunk = self.get(embedder, start)
        if chunk is None:
            raise UserError(f'output must be one folder for all ranks; {self.folder} lacks embeddings of '
                             f'{embedder.label}')
        return chunk

    def collect(self, embedder: Embedder, left_out: Set[int]) -> Embedded:
        """Return all embeddings but those of files that are left out; they are in memory only once."""
        whole = np.empty((len(self.files.files), embedder.details['dimensions']), np.float32)
        items = np.empty(len(whole), np.int32)
        done = 0
        for start in self.starts:
            chunk = self._chunk(embedder, start)
            keep = ~np.isin(chunk.items, [*left_out])
            stop = done + int(keep.sum())
            whole[done:stop], items[done:stop] = chunk.embeddings[keep], chunk.items[keep]
            done = stop
        return Embedded(whole[:done], items[:done])


def _embed(
        embedder: Embedder, starts: Sequence[int], cache: EmbeddingCache, batch_size: int, workers: int,
        device: torch.device, bar: Any,
) -> None:
    """Compute chunks of one model and store each as soon as it is complete."""
    transform = embedder.preprocessing.transform()
    data = FileDataset(cache.files, read_image, lambda image, name: [np.asarray(transform(image)).transpose(1, 2, 0)])
    ends = {start: start + cache.size(start) for start in starts}
    numbers = [[*range(first, min(first + batch_size, ends[start]))]
               for start in starts for first in range(start, ends[start], batch_size)]
    parts: List[np.ndarray] = []
    read: List[Batch] = []
    for last, batch in zip((part[-1] for part in numbers), batches(
            data, batch_size, workers, device.type == 'cuda', only=numbers)):
        read.append(batch._replace(images=batch.images[:0]))
        if len(batch.images):
            try:
                parts.append(compute_embeddings(
                    embedder.embed, batch.images.to(device, non_blocking=True)).cpu().numpy())
            except ValueError as e:
                raise UserError(f'models must fit the images; {embedder.label}: {e}') from e
            except torch.cuda.OutOfMemoryError as e:
                raise UserError(f'batch_size must be below {batch_size}: {device} has too little memory for '
                                 f'{embedder.label}; what is finished is cached') from e
        bar.update(len(batch.items) + len(batch.unreadable))
        start = last - last % CHUNK
        if last + 1 == ends[start]:
            cache.put(embedder, start, parts, read)
            parts, read = [], []


def embed_files(
        embedders: Sequence[Embedder], cache: EmbeddingCache, ranks: Ranks, bar: Any, batch_size: int, workers: int,
        device: torch.device,
) -> None:
    """Compute what is not cached yet. A file that cannot be read is no error: its chunk names it."""
    own = ranks.own(cache.starts)
    waiting = {embedder.label: [start for start in own if cache.get(embedder, start) is None] for embedder in embedders}
    missing = sum(cache.size(start) for starts in waiting.values() for start in starts)
    bar.reset(total=len(embedders) * sum(map(cache.size, own)))
    bar.update(bar.total - missing)
    for embedder in embedders:
        bar.set_postfix_str(embedder.label, refresh=False)
        _embed(embedder, waiting[embedder.label], cache, batch_size, workers, device, bar)
