"""The library's entry: measure models and return the results."""
import hashlib
import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch

from ..data.images import FileList, printable
from ..errors import UserError, check
from ..evaluation.engine import Loading, TaskCache, collect_unreadable, image_bar, run_tasks
from ..evaluation.models import Model, check_identities, label_models
from ..evaluation.options import Option, Options, PathLike, check_packages, with_options
from ..evaluation.results import check_output, make_run, package_versions, unreadable_line
from ..runtime.device import amp_dtype, find_device
from ..runtime.ranks import Ranks
from .datasets import DATASETS, find_images
from .embedders import HEADS, load_embedder
from .embeddings import Embedded, collect, embedding_tasks
from .figure import SHOWN, Example, choose_queries
from .metrics import Scores, retrieval_metrics, score_neighbours
from .results import SCHEMA_VERSION, Results
from .search import block_rows, nearest_neighbours, normalize

__all__ = ['RetrievalOptions', 'evaluate']

RECALL_AT = (1, 2, 4, 8)


@dataclass(kw_only=True)
class RetrievalOptions(Options):
    """What :func:`timm_assemble.retrieval.evaluate` takes."""

    dataset: Annotated[Optional[str], Option(
        'CUB-200-2011, Cars196 or Stanford Online Products: search the test classes of the published split.',
        choices=(*DATASETS,))] = None
    download: Annotated[bool, Option('Download the data set if `data_dir` is new or empty.')] = False
    head: Annotated[str, Option(
        "What the classifier gets; embedding, the layer between pooling and classifier, of this package's models "
        'before its ReLU; avg or gem, the last feature map pooled; flat, all its values.', choices=HEADS)] = 'model'
    last_stride: Annotated[Optional[int], Option(
        "Stride of stage 4 of this package's models; their own if not given.", choices=(1, 2))] = None
    recall_at: Annotated[Optional[Sequence[int]], Option(
        'Numbers of neighbours; 1, 2, 4 and 8 if not given, and 1, 10, 100 and 1000 for sop.', metavar='K')] = None
    input_size: Annotated[Optional[Tuple[int, int]], Option(
        "Height and width of the models' input, or one number for both; the models' own if not given. Callables "
        'need it.', metavar='N')] = None
    crop_pct: Annotated[Optional[float], Option(
        "Fraction of the short side that is cropped; the models' own if not given.", metavar='F')] = None
    queries: Annotated[int, Option('Queries in the figure of each model; 0 for none.', metavar='N', minimum=0)] = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.crop_pct is None or 0 < self.crop_pct <= 1, 'crop_pct', self.crop_pct, 'above 0 and at most 1')


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


@with_options(RetrievalOptions)
def evaluate(
        models: Union[Model, Sequence[Model], Mapping[str, Model]], data_dir: PathLike, options: RetrievalOptions,
) -> Results:
    """Measure recall@k and MAP@R of models: every image is searched among all others by its embedding.

    Images are preprocessed as timm does it for each model's tests. Under torchrun the ranks share the work and all
    return the results; on several machines ``output`` must be a shared folder.

    Args:
        models: One or several, or a mapping from labels. A model is a name that timm has weights for,
            ``hf-hub:USER/NAME``, ``local-dir:FOLDER``, ``NAME=CHECKPOINT``, or a callable from (N, 3, H, W) uint8 RGB
            images on the device to (N, D) embeddings, which normalizes them itself.
        data_dir: Folder ``class/*`` of images; with ``dataset`` the root of the published files.
        {options}

    Raises:
        UserError: An argument is wrong, the images or a model do not fit, or a package of the extra ``retrieval`` is
            missing.
    """
    o = options
    check_packages('retrieval', *(['pytorch_metric_learning'] if o.dataset else []),
                   *(['matplotlib'] if o.output else []))
    labelled, _ = label_models(models)
    identities = o.identities or {}
    check_identities(labelled, identities, o.output is not None)
    device = find_device(o.device)
    precision = str(amp_dtype(device) if o.amp else torch.float32).removeprefix('torch.')
    reports, seconds, examples = [], {}, {}
    with ExitStack() as stack:
        ranks = stack.enter_context(Ranks())
        files = ranks.from_first(lambda: find_images(Path(data_dir), o.dataset, o.download))
        recalls = _recall_at(o.recall_at, o.dataset, len(files.files))
        embedders = [load_embedder(
            label, model, device, head=o.head, last_stride=o.last_stride, input_size=o.input_size, crop_pct=o.crop_pct,
            amp=o.amp, identity=identities.get(label)) for label, model in labelled.items()]
        folder = Path(o.output or ranks.from_first(lambda: stack.enter_context(tempfile.TemporaryDirectory())))
        versions = package_versions('torchvision', *(['pytorch-metric-learning'] if o.dataset else []))
        store = TaskCache(Path(o.cache or folder / 'cache'), precision, versions)
        tasks, classes = embedding_tasks(files, embedders), np.array([label for _, label in files.files])
        measurement = hashlib.sha256(json.dumps(
            [[(e.label, store.identity(task, e)) for e in embedders for task in tasks[:1]], recalls, classes.tolist()],
            sort_keys=True).encode()).hexdigest()
        ranks.from_first(lambda: check_output(folder, measurement))
        bar = stack.enter_context(image_bar(disable=not o.progress or ranks.rank > 0))
        run_tasks(tasks, embedders, store, Loading(o.batch_size, o.workers, device), ranks, bar)
        ranks.barrier()
        left_out, unreadable = collect_unreadable(
            [store.expect(task, e)._replace(records={}) for e in embedders for task in tasks if task.measures(e)])
        for e in embedders:
            embedded, seconds[e.label] = collect(e, tasks, store, left_out.get(files.names, set()))
            began = time.perf_counter()
            if np.bincount(classes[embedded.items]).max(initial=0) < 2:
                raise UserError(f'data_dir must have two images of one class that can be read, '
                                f'{printable(files.folder)} has {len(embedded.items)} of {len(files.files)} images, '
                                f'none of them of one class')
            bar.reset(total=len(embedded.items) // ranks.world_size)
            bar.set_postfix_str(f'searched, {e.label}', refresh=False)
            try:
                found = _search(embedded, classes, max(recalls, default=1), device, ranks, bar)
            except torch.cuda.OutOfMemoryError as error:
                raise UserError(f'device must hold all embeddings, {e.label} has {len(embedded.items)} of '
                                f'{e.details["dimensions"]} numbers, {device} has too little memory') from error
            reports.append(dict(
                label=e.label, **e.details, images=len(embedded.items), queries=int((found.relevant > 0).sum()),
                metrics=retrieval_metrics(found.scores, found.relevant, recalls)))
            if o.queries:
                examples[e.label] = _examples(found, embedded.items, files, o.queries)
            seconds[e.label] += time.perf_counter() - began
        notes = [*files.notes]
        alone = reports[0]['images'] - reports[0]['queries']
        if alone:
            notes.append(f'{alone} images have no other of their class: they are searched, and are no queries')
        if unreadable:
            notes.append(f'{unreadable_line(unreadable)}; they are left out')
        values: Dict[str, Any] = dict(
            schema_version=SCHEMA_VERSION, versions=versions,
            protocol=dict(name=o.dataset or 'folder', text=_protocol(files, o.dataset, o.head, o.last_stride),
                          head=o.head, last_stride=o.last_stride, recall_at=recalls, precision=precision),
            data={o.dataset or 'images': dict(
                folder=printable(files.folder), fingerprint=files.fingerprint, items=len(files.files),
                classes=len({*classes.tolist()}))},
            measurement=measurement, unreadable=unreadable, models=reports, notes=notes,
            run=make_run(o, device, ranks.world_size, seconds))

        def finish() -> Dict[str, Any]:
            results = Results(values, examples)
            if o.output is not None:
                results.write(o.output)
            return results.to_dict()
        return Results(ranks.from_first(finish), examples)  # the other ranks wait until the files are whole
