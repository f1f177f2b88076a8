"""The library's entry: measure models and return the results."""
import hashlib
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from tqdm import tqdm

from ..errors import UserError
from ..evaluation.image_files import FileList, unreadable_line
from ..evaluation.models import Model, check_identities, label_models
from ..evaluation.requirements import check_packages, find_device
from ..evaluation.results import check_output
from ..runtime.ranks import Ranks
from .datasets import DATASETS, find_images
from .embedders import load_embedder
from .embeddings import Embedded, EmbeddingCache, embed_files
from .figure import SHOWN, Example, choose_queries
from .metrics import Scores, retrieval_metrics, score_neighbours
from .report import SCHEMA_VERSION, Results
from .search import block_rows, nearest_neighbours, normalize

__all__ = ['evaluate']

PathLike = Union[str, Path]
RECALL_AT = (1, 2, 4, 8)


class Found(NamedTuple):
    """Scores of all images as queries, their nearest neighbours, and how many others each class has."""

    scores: Scores
    neighbours: np.ndarray
    similarities: np.ndarray
    relevant: np.ndarray


def _search(embedded: Embedded, classes: np.ndarray, most: int, device: torch.device, ranks: Ranks, bar: Any) -> Found:
    """Search every image among the others, and score it; ``most`` neighbours for recall."""
    embeddings = normalize(torch.from_numpy(embedded.embeddings).to(device))
    labels = torch.from_numpy(classes[embedded.items]).to(device)
    relevant = torch.bincount(labels)[labels] - 1
    k = min(len(embeddings) - 1, max(most, SHOWN, int(relevant.max())))
    parts: List[Tuple[int, Tuple[np.ndarray, ...]]] = []
    for start in ranks.own(range(0, len(embeddings), block_rows(len(embeddings)))):
        _, indices, similarities = nearest_neighbours(embeddings, k, start)
        queries = slice(start, start + len(indices))
        scores = score_neighbours(labels[indices] == labels[queries, None], relevant[queries])
        parts.append((start, (*scores, indices[:, :SHOWN].cpu().numpy(), similarities[:, :SHOWN].cpu().numpy())))
        bar.update(len(indices))
    blocks = [arrays for _, arrays in sorted(ranks.gather(parts), key=lambda part: part[0])]
    first, average, neighbours, similarity = (np.concatenate(arrays) for arrays in zip(*blocks))
    return Found(Scores(first, average), neighbours, similarity, relevant.cpu().numpy())


def _examples(found: Found, items: np.ndarray, files: FileList, count: int) -> List[Example]:
    def path(i: int) -> Path:
        return files.folder / files.files[items[i]][0]

    def name(i: int) -> str:
        return files.classes[files.files[items[i]][1]]
    return [Example(path(i), name(i), [(path(j), name(j), float(similarity))
                                       for j, similarity in zip(found.neighbours[i], found.similarities[i])])
            for i in choose_queries(found.scores.first, found.relevant > 0, count)]


def _protocol(files: FileList, dataset: Optional[str], head: str, last_stride: Optional[int]) -> str:
    what = f'test classes of {DATASETS[dataset].title}, ' if dataset else ''
    return (f'{what}{len(files.files)} images of {len({label for _, label in files.files})} classes, each searched '
            f'among all others by cosine similarity; head {head}'
            f'{f", last stride {last_stride}" if last_stride else ""}')


def _recall_at(recall_at: Optional[Sequence[int]], dataset: Optional[str], images: int) -> List[int]:
    """Return the numbers of neighbours, sorted; those of the data set below the number of images, if None."""
    if recall_at is None:
        return [k for k in (DATASETS[dataset].recall_at if dataset else RECALL_AT) if k < images]
    wrong = [k for k in recall_at if not 1 <= k < images]
    if wrong or not recall_at:
        raise UserError(f'recall_at must be from 1 to {images - 1}, the number of other images, got '
                         f'{wrong[0] if wrong else "none"}')
    return sorted({*recall_at})


def _versions(dataset: Optional[str]) -> Dict[str, str]:
    from .. import __version__

    packages = ['timm', 'torch', 'torchvision', 'pillow', *(['pytorch-metric-learning'] if dataset else [])]
    return {'timm_assemble': __version__, 'python': sys.version.split()[0],
            **{name: metadata.version(name) for name in packages}}


def evaluate(
        models: Union[Model, Sequence[Model], Mapping[str, Model]],
        data_dir: PathLike,
        *,
        dataset: Optional[str] = None,
        download: bool = False,
        head: str = 'model',
        last_stride: Optional[int] = None,
        recall_at: Optional[Sequence[int]] = None,
        input_size: Optional[int] = None,
        crop_pct: Optional[float] = None,
        queries: int = 8,
        output: Optional[PathLike] = None,
        cache: Optional[PathLike] = None,
        identities: Optional[Mapping[str, str]] = None,
        batch_size: int = 64,
        workers: int = 0,
        device: Union[str, torch.device, None] = None,
        amp: bool = False,
        progress: bool = False,
        command: str = 'timm_assemble.retrieval.evaluate',
) -> Results:
    """Measure recall@k and MAP@R of models: every image is searched among all others by its embedding.

    Images are preprocessed as timm does it for each model's tests. Under torchrun the ranks share the work and all
    return the results; on several machines ``output`` must be a shared folder.

    Args:
        models: One or several, or a mapping from labels. A model is a name that timm has weights for,
            ``hf-hub:USER/NAME``, ``local-dir:FOLDER``, ``NAME=CHECKPOINT``, or a callable from (N, 3, S, S) uint8 RGB
            images on the device to (N, D) embeddings, which normalizes them itself.
        data_dir: Folder ``class/*`` of images; with ``dataset`` the root of the published files.
        dataset: ``'cub'``, ``'cars196'`` or ``'sop'``: search the test classes of the published split.
        download: Download the data set if ``data_dir`` is new or empty.
        head: ``'model'``, what the classifier gets; ``'embedding'``, the layer between pooling and classifier, of this
            package's models before its ReLU, as the official code; ``'avg'`` or ``'gem'``, the last feature map pooled;
            ``'flat'``, all its values.
        last_stride: Stride of stage 4, 1 or 2, of this package's models; their own if None.
        recall_at: Numbers of neighbours; 1, 2, 4 and 8 if None, and 1, 10, 100 and 1000 for ``'sop'``.
        input_size: Side in pixels of the models' input; the models' own if None. Callables need it.
        crop_pct: Fraction of the short side that is cropped; the models' own if None.
        queries: Number of queries in the figure of each model; 0 for none.
        output: Folder for the results and the cache. The same call continues where it stopped; results of another
            measurement are never overwritten. Without it nothing is written, and nothing is cached.
        cache: Folder of the cache, which several outputs may share; ``cache`` in ``output`` if None.
        identities: Label of a callable to a text that says which weights it has: a checkpoint's checksum, for example.
            ``output`` requires it, because cached embeddings are reused for the same identity.
        batch_size: Images per batch.
        workers: Processes that read images; they change no metric.
        device: Where the models run and the images are searched; CUDA if there is one, else the CPU, if None.
        amp: Mixed precision for models by name: float16 on CUDA, else bfloat16.
        progress: Show a progress bar.
        command: What results.json says was called.

    Raises:
        UserError: An argument is wrong, the images or a model do not fit, or a package of the extra ``retrieval`` is
            missing.
    """
    for name, value, least in (
            ('input_size', input_size, 1), ('queries', queries, 0), ('batch_size', batch_size, 1),
            ('workers', workers, 0)):
        if value is not None and value < least:
            raise UserError(f'{name} must be {least} or more, got {value}')
    if last_stride not in (None, 1, 2):
        raise UserError(f'last_stride must be 1 or 2, got {last_stride}')
    if crop_pct is not None and not 0 < crop_pct <= 1:
        raise UserError(f'crop_pct must be above 0 and at most 1, got {crop_pct}')
    if cache and not output:
        raise UserError('cache needs `output`: without it nothing is cached')
    check_packages('retrieval', *(['pytorch_metric_learning'] if dataset else []),
                   *(['matplotlib', 'jsonschema'] if output else []))
    labelled, _ = label_models(models)
    identities = identities or {}
    check_identities(labelled, identities, output is not None)
    device = find_device(device)
    precision = 'float32' if not amp else 'float16' if device.type == 'cuda' else 'bfloat16'
    examples: Dict[str, List[Example]] = {}
    reports, seconds = [], {}
    with ExitStack() as stack:
        ranks = stack.enter_context(Ranks())
        files = ranks.from_first(lambda: find_images(Path(data_dir), dataset, download))
        recalls = _recall_at(recall_at, dataset, len(files.files))
        embedders = [load_embedder(label, model, device, head=head, last_stride=last_stride, input_size=input_size,
                                   crop_pct=crop_pct, amp=amp, identity=identities.get(label))
                     for label, model in labelled.items()]
        folder = Path(output or ranks.from_first(lambda: stack.enter_context(tempfile.TemporaryDirectory())))
        store = EmbeddingCache(Path(cache or folder / 'cache'), files, precision)
        classes = np.array([label for _, label in files.files])
        measurement = hashlib.sha256(json.dumps(
            [[(embedder.label, store.identity(embedder)) for embedder in embedders], recalls, classes.tolist()],
            sort_keys=True).encode()).hexdigest()
        ranks.from_first(lambda: check_output(folder, measurement))
        bar = stack.enter_context(tqdm(total=0, unit='image', disable=not progress or ranks.rank > 0,
                                       dynamic_ncols=True))
        began = time.perf_counter()
        embed_files(embedders, store, ranks, bar, batch_size, workers, device)
        ranks.barrier()
        embed_seconds = time.perf_counter() - began
        unreadable = {file.item: file for embedder in embedders for file in store.unreadable(embedder)}
        for embedder in embedders:
            began = time.perf_counter()
            embedded = store.collect(embedder, {*unreadable})
            if np.bincount(classes[embedded.items]).max(initial=0) < 2:
                raise UserError(f'data_dir must have two images of one class that can be read, {files.folder} has '
                                 f'{len(embedded.items)} of {len(files.files)} images, none of them of one class')
            bar.reset(total=len(embedded.items) // ranks.world_size)
            bar.set_postfix_str(f'searched, {embedder.label}', refresh=False)
            try:
                found = _search(embedded, classes, max(recalls, default=1), device, ranks, bar)
            except torch.cuda.OutOfMemoryError as e:
                raise UserError(f'device must hold all embeddings, {embedder.label} has {len(embedded.items)} of '
                                 f'{embedder.details["dimensions"]} numbers, {device} has too little memory') from e
            reports.append(dict(
                label=embedder.label, **embedder.details, images=len(embedded.items),
                queries=int((found.relevant > 0).sum()),
                metrics=retrieval_metrics(found.scores, found.relevant, recalls)))
            if queries:
                examples[embedder.label] = _examples(found, embedded.items, files, queries)
            seconds[embedder.label] = time.perf_counter() - began
        ranks.barrier()  # before the temporary folder goes

    values: Dict[str, Any] = dict(
        schema_version=SCHEMA_VERSION, versions=_versions(dataset),
        protocol=dict(name=dataset or 'folder', text=_protocol(files, dataset, head, last_stride), head=head,
                      last_stride=last_stride, recall_at=recalls, precision=precision),
        data={dataset or 'images': dict(folder=str(files.folder), fingerprint=files.fingerprint,
                                        items=len(files.files), classes=len({*classes.tolist()}))},
        measurement=measurement,
        unreadable=[dict(path=str(file.path), reason=file.reason) for _, file in sorted(unreadable.items())],
        models=reports, notes=[*files.notes],
        run=dict(date=datetime.now(timezone.utc).isoformat(timespec='seconds'), command=command, device=str(device),
                 batch_size=batch_size, workers=workers, world_size=ranks.world_size,
                 seconds=dict(embed=embed_seconds, search=seconds)))
    alone = reports[0]['images'] - reports[0]['queries']
    if alone:
        values['notes'].append(f'{alone} images have no other of their class: they are searched, and are no queries')
    if unreadable:
        values['notes'].append(f'{unreadable_line(values["unreadable"])}; they are left out')
    results = Results(values, examples)
    if output is not None and ranks.rank == 0:
        results.write(Path(output))
    return results
