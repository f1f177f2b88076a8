"""Bind the official data pipeline into timm's train.py: ``--aa``, ``--train-crop-mode`` and ``--interpolation``."""
from argparse import Namespace
from typing import Any

from torch.utils.data import default_collate

from ..data.official_steps import has_official_steps, replace_evaluation, replace_training, timm_arguments
from ..errors import UserError
from .stored_teacher import one_line

__all__ = ['bind_official']

# Arguments of train.py whose loaders build other transforms, with what they are without effect.
NOT_WITH_OFFICIAL = {'naflex_loader': False, 'aug_splits': 0, 'train_img_sizes': None}


def bind_official(script: Any, args: Namespace) -> None:
    """Bind the official steps that train.py's arguments ask for; before the stored teacher, whose loader calls this.

    Raises:
        UserError: Another argument does not fit them.
    """
    given = {'auto_augment': args.aa, 'train_crop_mode': args.train_crop_mode, 'interpolation': args.interpolation}
    timm_arguments(given)
    if not has_official_steps(given):
        return
    for name, off in NOT_WITH_OFFICIAL.items():
        if getattr(args, name, off) != off:
            raise UserError(f'{name} must be off with the official data pipeline, got {getattr(args, name)}')
    channels = args.in_chans or (args.input_size or (3,))[0]
    if channels != 3:
        raise UserError(f'in_chans must be 3 with the official data pipeline, got {channels}')
    create_loader = script.create_loader

    def create_with_official_steps(dataset: Any, input_size: Any, **arguments: Any) -> Any:
        if not has_official_steps(arguments):
            return create_loader(dataset, input_size, **arguments)
        known, prefetcher = timm_arguments(arguments), arguments.get('use_prefetcher', True)
        if arguments.get('is_training'):
            loader = create_loader(dataset, input_size, **known)
            dataset.transform = replace_training(dataset.transform, input_size, arguments)
            return loader
        if prefetcher:  # timm's would truncate floats to 8 bits
            known['collate_fn'] = default_collate
        loader = create_loader(dataset, input_size, **known)
        dataset.transform = replace_evaluation(
            input_size, arguments.get('crop_pct') or 0.875,
            **{} if prefetcher else {'mean': arguments['mean'], 'std': arguments['std']})
        return loader

    script.create_loader = one_line(create_with_official_steps)
