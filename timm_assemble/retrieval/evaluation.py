"""The library's entry: measure models and return the results."""
import hashlib
import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch

from ..data.images import FileList, printable, some
from ..errors import UserError, check
from ..evaluation.engine import Loading, TaskCache, collect_unreadable, image_bar, run_tasks
from ..evaluation.models import Model, check_identities, label_models
from ..evaluation.options import Option, Options, PathLike, check_packages, with_options
from ..evaluation.results import check_output, make_run, package_versions, unreadable_line
from ..runtime.device import amp_dtype, find_device
from ..runtime.ranks import Ranks
from .datasets import DATASETS, SearchSet, find_images
from .embedders import HEADS, load_embedder
from .embeddings import Embedded, collect, embedding_tasks
from .figure import SHOWN, Example, choose_queries
from .metrics import Scores, retrieval_metrics, score_queries
from .results import SCHEMA_VERSION, Results
from .search import block_rows, normalize, rank_gallery

__all__ = ['RetrievalOptions', 'evaluate']

RECALL_AT = (1, 2, 4, 8)


@dataclass(kw_only=True)
class RetrievalOptions(Options):
    """What :func:`timm_assemble.retrieval.evaluate` takes."""

    query: Annotated[Optional[Path], Option(
        'Images to search in `gallery`, one folder per class, instead of `data_dir`.', metavar='DIR')] = None
    gallery: Annotated[Optional[Path], Option(
        'Images that are searched, one folder per class; those of a class that no query has are distractors.',
        metavar='DIR')] = None
    split: Annotated[Optional[Path], Option(
        'CSV file with the columns path, in `data_dir` or else in its own folder, label and split: query, gallery, '
        'distractor, whose label is not read, or train, which is not searched.', metavar='FILE')] = None
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
    examples: Annotated[int, Option('Queries in the figure of each model; 0 for none.', metavar='N', minimum=0)] = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.crop_pct is None or 0 < self.crop_pct <= 1, 'crop_pct', self.crop_pct, 'above 0 and at most 1')


class Found(NamedTuple):
    """Of all queries that can be read the scores, the nearest neighbours, and how many right images there are."""

    scores: Scores
    neighbours: np.ndarray
    similarities: np.ndarray
    relevant: np.ndarray


def _search(data: SearchSet, query: Embedded, gallery: Embedded, device: torch.device, ranks: Ranks, bar: Any) -> Found:
    """Rank the gallery for every query, and score it."""
    relevant = data.relevant(query.items, gallery.items)
    searched = normalize(torch.from_numpy(gallery.embeddings).to(device))
    queries = searched if query is gallery else normalize(torch.from_numpy(query.embeddings).to(device))
    place = np.full(len(data.gallery.files) + 1, -1)  # the last is of -1
    place[gallery.items] = np.arange(len(gallery.items))
    own, labels, names = (torch.from_numpy(numbers).to(device) for numbers in (
        place[data.own[query.items]], data.query_labels[query.items], data.gallery_labels[gallery.items]))
    parts: List[Tuple[int, Tuple[np.ndarray, ...]]] = []
    for block in ranks.own(torch.arange(len(queries)).split(block_rows(len(searched)))):
        indices, similarities = rank_gallery(queries[block], searched, own[block])
        right = (labels[block, None] == names).gather(1, indices) & similarities.isfinite()
        nearest = (values[:, :SHOWN].cpu().numpy() for values in (indices, similarities))
        parts.append((int(block[0]), (*score_queries(right.cpu().numpy()), *nearest)))
        bar.update(len(block))
    blocks = [arrays for _, arrays in sorted(ranks.gather(parts), key=lambda part: part[0])]
    *scores, neighbours, similarity = (np.concatenate(arrays) for arrays in zip(*blocks))
    return Found(Scores(*scores), neighbours, similarity, relevant)


def _examples(data: SearchSet, query: Embedded, gallery: Embedded, found: Found, count: int) -> List[Example]:
    def about(files: FileList, item: int) -> Tuple[Path, str]:
        name, label = files.files[item]
        return files.folder / name, files.classes[label] if label >= 0 else ''
    return [Example(*about(data.query, query.items[i]), [
        (*about(data.gallery, gallery.items[j]), float(similarity))
        for j, similarity in zip(found.neighbours[i], found.similarities[i]) if np.isfinite(similarity)])
        for i in choose_queries(found.scores.first, found.relevant > 0, count)]


def _count_classes(files: FileList) -> int:
    return len({label for _, label in files.files if label >= 0})


def _protocol(data: SearchSet, dataset: Optional[str], head: str, last_stride: Optional[int]) -> str:
    what = f'test classes of {DATASETS[dataset].title}, ' if dataset else ''
    images = f'{len(data.gallery.files)} images of {_count_classes(data.gallery)} classes'
    how = f'{images}, each searched among all others' if len(data.lists) == 1 else (
        f'{len(data.query.files)} queries of {_count_classes(data.query)} classes, searched among {images}')
    return f'{what}{how} by cosine similarity; head {head}{f", last stride {last_stride}" if last_stride else ""}'


def _recall_at(recall_at: Optional[Sequence[int]], dataset: Optional[str], data: SearchSet) -> List[int]:
    """Return the numbers of neighbours, sorted; those of the data set that the gallery has, if None."""
    others = len(data.gallery.files) - bool((data.own >= 0).any())
    if recall_at is None:
        return [k for k in (DATASETS[dataset].recall_at if dataset else RECALL_AT) if k <= others]
    check(bool(recall_at) and all(1 <= k <= others for k in recall_at), 'recall_at', [*recall_at],
          f'from 1 to {others}, the number of other images')
    return sorted({*recall_at})


@with_options(RetrievalOptions)
def evaluate(
        models: Union[Model, Sequence[Model], Mapping[str, Model]], data_dir: Optional[PathLike] = None, *,
        options: RetrievalOptions,
) -> Results:
    """Measure recall@k, mAP and MAP@R of models: queries are searched in a gallery by their embeddings.

    Without a gallery every image of ``data_dir`` is searched among all others.

    Images are preprocessed as timm does it for each model's tests. Under torchrun the ranks share the work and all
    return the results; on several machines ``output`` must be a shared folder.

    Args:
        models: One or several, or a mapping from labels. A model is a name that timm has weights for,
            ``hf-hub:USER/NAME``, ``local-dir:FOLDER``, ``NAME=CHECKPOINT``, or a callable from (N, 3, H, W) uint8 RGB
            images on the device to (N, D) embeddings, which normalizes them itself.
        data_dir: Folder ``class/*`` of images; with ``dataset`` or ``split`` the root of the files that these name.
        {options}

    Raises:
        UserError: An argument is wrong, the images or a model do not fit, or a package of the extra ``retrieval`` is
            missing.
    """
    o = options
    check_packages('retrieval', 'scipy', *(['pytorch_metric_learning'] if o.dataset else []),
                   *(['matplotlib'] if o.output else []))
    labelled, _ = label_models(models)
    identities = o.identities or {}
    check_identities(labelled, identities, o.output is not None)
    device = find_device(o.device)
    precision = str(amp_dtype(device) if o.amp else torch.float32).removeprefix('torch.')
    reports, seconds, examples = [], {}, {}
    with ExitStack() as stack:
        ranks = stack.enter_context(Ranks())
        data = ranks.from_first(lambda: find_images(
            None if data_dir is None else Path(data_dir), query=o.query, gallery=o.gallery, split=o.split,
            dataset=o.dataset, download=o.download))
        data.relevant(*(np.arange(len(files.files)) for files in (data.query, data.gallery)))
        recalls = _recall_at(o.recall_at, o.dataset, data)
        embedders = [load_embedder(
            label, model, device, head=o.head, last_stride=o.last_stride, input_size=o.input_size, crop_pct=o.crop_pct,
            amp=o.amp, identity=identities.get(label)) for label, model in labelled.items()]
        folder = Path(o.output or ranks.from_first(lambda: stack.enter_context(tempfile.TemporaryDirectory())))
        versions = package_versions('torchvision', *(['pytorch-metric-learning'] if o.dataset else []))
        store = TaskCache(Path(o.cache or folder / 'cache'), precision, versions)
        tasks = {role: embedding_tasks(files, embedders) for role, files in data.lists.items()}
        measurement = hashlib.sha256(json.dumps(
            [[(e.label, store.identity(of[0], e)) for e in embedders for of in tasks.values()], recalls,
             *(numbers.tolist() for numbers in (data.query_labels, data.gallery_labels, data.own))],
            sort_keys=True).encode()).hexdigest()
        ranks.from_first(lambda: check_output(folder, measurement))
        bar = stack.enter_context(image_bar(disable=not o.progress or ranks.rank > 0))
        run_tasks([*chain(*tasks.values())], embedders, store, Loading(o.batch_size, o.workers, device), ranks, bar)
        ranks.barrier()
        unreadable, left_out = [], {}
        for role, files in data.lists.items():  # each by itself: their files may have the same names
            items, unread = collect_unreadable([store.expect(task, e)._replace(records={}) for e in embedders
                                                for task in tasks[role] if task.measures(e)])
            left_out[role] = items.get(files.names, set())
            unreadable += unread
        for e in embedders:
            embedded = {role: collect(e, tasks[role], store, left_out[role]) for role in data.lists}
            gallery, query = embedded['gallery'], embedded.get('query', embedded['gallery'])
            began = time.perf_counter()
            bar.reset(total=len(query.items) // ranks.world_size)
            bar.set_postfix_str(f'searched, {e.label}', refresh=False)
            try:
                found = _search(data, query, gallery, device, ranks, bar)
            except torch.cuda.OutOfMemoryError as error:
                raise UserError(f'device must hold all embeddings, {e.label} has {len(gallery.items)} of '
                                f'{e.details["dimensions"]} numbers, {device} has too little memory') from error
            asked, queries = found.relevant > 0, data.query_labels[query.items]
            reports.append(dict(
                label=e.label, **e.details, queries=int(asked.sum()), gallery=len(gallery.items),
                distractors=int((~np.isin(data.gallery_labels[gallery.items], queries[asked])).sum()),
                **retrieval_metrics(found.scores, asked, recalls)))
            if o.examples:
                examples[e.label] = _examples(data, query, gallery, found, o.examples)
            seconds[e.label] = sum(part.seconds for part in embedded.values()) + time.perf_counter() - began
        notes = [note for files in data.lists.values() for note in files.notes]
        if not asked.all():
            alone = some([printable(data.classes[i]) for i in np.unique(queries[~asked])])
            notes.append(f'{int((~asked).sum())} of {len(asked)} queries have no other image of their class to find, '
                         f'and are left out; their classes are {alone}')
        if unreadable:
            notes.append(f'{unreadable_line(unreadable)}; they are left out')
        values: Dict[str, Any] = dict(
            schema_version=SCHEMA_VERSION, versions=versions,
            protocol=dict(name=o.dataset or data.parameter.replace('data_dir', 'folder'),
                          text=_protocol(data, o.dataset, o.head, o.last_stride),
                          head=o.head, last_stride=o.last_stride, recall_at=recalls, precision=precision),
            data={role: dict(
                folder=printable(files.folder), fingerprint=files.fingerprint, items=len(files.files),
                classes=_count_classes(files)) for role, files in data.lists.items()},
            measurement=measurement, unreadable=unreadable, models=reports, notes=notes,
            run=make_run(o, device, ranks.world_size, seconds))

        def finish() -> Dict[str, Any]:
            results = Results(values, examples)
            if o.output is not None:
                results.write(o.output)
            return results.to_dict()
        return Results(ranks.from_first(finish), examples)  # the other ranks wait until the files are whole
