"""Bind a stored teacher, logits or views, into timm's train.py: its data sets, loader, mixup and task."""
import functools
import math
import sys
from argparse import Namespace
from typing import Any, Callable, List, Optional

from timm.data.loader import fast_collate
from torch.utils.data import default_collate

from ..data.samples import innermost
from ..errors import UserError
from ..training import (
    RepeatedViews, StoredLogitsDistillationTask, TeacherCollate, TeacherCollateMixup, TeacherDataset, TeacherLogits,
    TeacherMixup, TeacherViews, ViewDataset, describe_mixing, describe_transform, distillation_loss, fingerprint,
)
from ..training.view_mixing import MIXING_ARGUMENTS
from ..training.view_transform import TRANSFORM_ARGUMENTS

__all__ = ['bind_stored_teacher', 'mix_nothing', 'one_line']

STORES = {'logits': TeacherLogits, 'views': TeacherViews}
# Arguments of train.py that change the image in ways that no stored view has, with what they are without effect.
NOT_WITH_VIEWS = {
    'aug_splits': (0, 'splits need several views of an image at once'),
    'train_img_sizes': (None, 'views have one size'),
    'use_multi_epochs_loader': (False, 'its workers begin an epoch before it is known; workers are persistent anyway'),
}


def one_line(function: Callable) -> Callable:
    """Report a user's mistake in one line and exit with status 2, as argparse does."""
    @functools.wraps(function)
    def reporting(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError as e:
            print(f'timm_assemble: {e}', file=sys.stderr, flush=True)
            raise SystemExit(2) from e
    return reporting


def _open(name: str, args: Namespace) -> Any:
    """Open the store and check train.py's arguments against what a store can do."""
    kind, _, path = name.partition(':')
    if args.kd_distill_type != 'logit':
        raise UserError(f'kd_distill_type must be logit with stored {kind}, got {args.kd_distill_type}')
    if getattr(args, 'naflex_loader', False):
        raise UserError(f'naflex_loader must be off with stored {kind}: it splits images into patches')
    distillation_loss(args.kd_loss_type, 'kd_loss_type')
    if not args.kd_temperature > 0:
        raise UserError(f'kd_temperature must be positive, got {args.kd_temperature}')
    for argument, (off, why) in NOT_WITH_VIEWS.items() if kind == 'views' else ():
        if getattr(args, argument, off) != off:
            raise UserError(f'{argument} must be off with stored views: {why}')
    try:
        store: Any = STORES[kind](path)
    except UserError as e:
        raise UserError(f'kd_model_name must name stored {kind}: {e}') from e
    if kind == 'views' and store.mixing is not None:
        if args.mixup_off_epoch:
            raise UserError(f'mixup_off_epoch must be 0 with stored views of mixed images, got {args.mixup_off_epoch}')
        if args.mixup_mode == 'half':
            raise UserError('mixup_mode must be batch, pair or elem with stored views of mixed images, got half')
    return store


def _with_views(dataset: Any, store: TeacherViews, args: Namespace, num_classes: int, loader_args: Any) -> ViewDataset:
    transform = describe_transform(
        getattr(innermost(dataset), 'input_img_mode', None),
        **{name: value for name, value in loader_args.items() if name in TRANSFORM_ARGUMENTS})
    if store.mixing is not None:
        mixed = args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None  # as train.py decides
        mixing = {name: getattr(args, name) for name in MIXING_ARGUMENTS}
        transform['mixing'] = describe_mixing(**mixing) if mixed else None
    store.check(fingerprint(innermost(dataset)), num_classes, transform)
    repeats = math.ceil(loader_args.get('num_aug_repeats') or 1)
    standardized = distillation_loss(args.kd_loss_type).standardized
    return ViewDataset(dataset, store, args.kd_temperature, args.seed, repeats, standardized, args.smoothing)


def _describe(store: Any) -> str:
    """Return a store's teachers, with their weights if they are several, and what it holds; no folder of a teacher."""
    teacher = store.info.teacher
    teachers = teacher.get('teachers') or [teacher]
    names = [own.get('name', 'a teacher') for own in teachers]
    names = ['a model from a folder' if name.startswith('local-dir:') else name for name in names]
    if len(teachers) > 1:
        names = [f'{own["weight"]:.2g} {name}' for own, name in zip(teachers, names)]
    views = f'{store.views} stored views' if isinstance(store, TeacherViews) else 'stored logits'
    mixed = ' of mixed images' if isinstance(store, TeacherViews) and store.mixing is not None else ''
    return f'{" + ".join(names)}, {views}{mixed}'


def mix_nothing(**_: Any) -> None:
    """Stand in for timm's mixup where the views are mixtures already."""


def bind_stored_teacher(script: Any, args: Namespace) -> None:
    """Bind the store that ``kd_model_name`` names, as ``logits:STORE`` or ``views:STORE``; nothing for other names.

    Raises:
        UserError: The store cannot be read, or an argument does not fit it.
    """
    name: Optional[str] = args.kd_model_name
    if not name or name.partition(':')[0] not in STORES:
        return
    store = _open(name, args)
    create_model, create_loader, train_one_epoch = script.create_model, script.create_loader, script.train_one_epoch
    models: List[Any] = []

    def train_and_name_teacher(
            epoch: int, model: Any, loader: Any, optimizer: Any, args: Namespace, *others: Any, **kwargs: Any) -> Any:
        if store.info is not None:
            args.kd_teacher = _describe(store)  # checkpoints have these arguments, and cards name it
        return train_one_epoch(epoch, model, loader, optimizer, args, *others, **kwargs)

    def create_and_note(*model_args: Any, **kwargs: Any) -> Any:
        models.append(create_model(*model_args, **kwargs))
        return models[-1]

    def create_with_rows(dataset: Any, *loader_args: Any, **kwargs: Any) -> Any:
        if not kwargs.get('is_training'):
            return create_loader(dataset, *loader_args, **kwargs)
        num_classes = args.num_classes or models[0].num_classes
        if isinstance(store, TeacherViews):
            dataset = _with_views(dataset, store, args, num_classes, kwargs)
        else:
            store.check(fingerprint(innermost(dataset)), num_classes)
            store.check_content(innermost(dataset), getattr(args, 'rank', 0), getattr(args, 'world_size', 1))
            dataset = TeacherDataset(
                dataset, store, args.kd_temperature, distillation_loss(args.kd_loss_type).standardized)
        if kwargs.get('collate_fn') is None:  # no mixup, or stored mixtures
            collate = fast_collate if kwargs.get('use_prefetcher', True) else default_collate
            kwargs['collate_fn'] = TeacherCollate(collate)
        loader = create_loader(dataset, *loader_args, **kwargs)
        if isinstance(dataset, ViewDataset):
            dataset.check_replay(workers=kwargs.get('num_workers', 0))
            if kwargs.get('num_aug_repeats'):
                loader.batch_sampler.sampler = RepeatedViews(loader.sampler)
        return loader

    def create_task(
            student_model: Any, teacher_model: str, loss_type: str = 'kl', **kwargs: Any,
    ) -> StoredLogitsDistillationTask:
        return StoredLogitsDistillationTask(student_model, loss_type=loss_type, **kwargs)

    script.train_one_epoch = train_and_name_teacher
    script.create_model = create_and_note
    script.create_loader = one_line(create_with_rows)
    premixed = isinstance(store, TeacherViews) and store.mixing is not None
    script.Mixup = mix_nothing if premixed else TeacherMixup
    script.FastCollateMixup = mix_nothing if premixed else TeacherCollateMixup
    script.LogitDistillationTask = create_task
