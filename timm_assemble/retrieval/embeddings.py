"""Embeddings of files as tasks of the engine: chunks of a file list, cached as soon as they are complete."""
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Dict, List, NamedTuple, Sequence, Set

import numpy as np
from PIL import Image

from ..data.images import FileList, printable, read_image
from ..data.preprocessing import Preprocessing
from ..evaluation.engine import Batch, Records, Task, TaskCache
from .embedders import Embedder, compute_embeddings

__all__ = ['CHUNK', 'Embedded', 'EmbeddingTask', 'collect', 'embedding_tasks']

CHUNK = 256  # images


class Embedded(NamedTuple):
    """(M, D) embeddings of the files that can be read, their (M,) numbers in the file list, and their seconds."""

    embeddings: np.ndarray
    items: np.ndarray
    seconds: float


@dataclass(eq=False)
class EmbeddingTask(Task):
    """Embeddings of a chunk of the files, of all models that take the same pixels."""

    files: FileList
    start: int
    chunk: int
    pixels: Preprocessing

    title = 'embeddings'
    compress: ClassVar[bool] = False  # floats hardly get smaller
    needs = ('embeddings',)

    def __post_init__(self) -> None:
        self.transform = self.pixels.transform(normalized=False)
        self.folder, self.names, self.items = self.files.folder, self.files.names, len(self.numbers)

    @property
    def numbers(self) -> range:
        return range(self.start, min(self.start + self.chunk, len(self.files.files)))

    def measures(self, model: Embedder) -> bool:
        return model.pixels == self.pixels

    def identity(self, model: Embedder) -> Dict[str, Any]:
        # queries and other galleries may have the same names and sizes, as images of BMP do
        return dict(kind='embeddings', folder=printable(os.path.realpath(self.folder)), data=self.files.fingerprint,
                    start=self.start, chunk=self.chunk)

    def list_files(self) -> FileList:
        return self.files

    def load(self, path: Path) -> Image.Image:
        return read_image(path)

    def finish(self, loaded: Image.Image, name: str) -> List[np.ndarray]:
        return [np.asarray(self.transform(loaded)).transpose(1, 2, 0)]

    def measure(self, model: Embedder, batch: Batch) -> Records:
        return dict(embeddings=compute_embeddings(model.compute, batch.images).cpu().numpy())


def embedding_tasks(files: FileList, embedders: Sequence[Embedder]) -> List[EmbeddingTask]:
    """Return a task for each chunk of the files and each way in which models take pixels."""
    return [EmbeddingTask(files, start, CHUNK, pixels) for pixels in dict.fromkeys(e.pixels for e in embedders)
            for start in range(0, len(files.files), CHUNK)]


def collect(embedder: Embedder, tasks: Sequence[EmbeddingTask], cache: TaskCache, left_out: Set[int]) -> Embedded:
    """Return all embeddings but those of files that are left out; they are in memory only once."""
    own = [task for task in tasks if task.measures(embedder)]
    whole = np.empty((len(own[0].files.files), embedder.details['dimensions']), np.float32)
    items = np.empty(len(whole), np.int32)
    done, seconds = 0, 0.0
    for task in own:
        result = cache.expect(task, embedder)
        seconds += result.seconds
        if result.records:
            keep = ~np.isin(result.records['item'], [*left_out])
            stop = done + int(keep.sum())
            whole[done:stop], items[done:stop] = result.records['embeddings'][keep], result.records['item'][keep]
            done = stop
    return Embedded(whole[:done], items[:done], seconds)
