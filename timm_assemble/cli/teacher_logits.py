"""``timm-assemble teacher-logits``."""
import argparse
from pathlib import Path
from typing import Any, Dict, Optional

from ..errors import UserError, check, error_line
from .arguments import key_value, non_negative, path, positive

HELP = "store a teacher's logits of a training set, for distillation without running the teacher"
PARAMETERS = {'dataset': '--data-dir', 'size': '--img-size', 'weights': '--teacher-weights'}
INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'box', 'hamming', 'lanczos')
# train.py's arguments that decide the pixels of a training image, with its defaults.
AUGMENTATION: Dict[str, Any] = {
    'no_aug': False, 'train_crop_mode': None, 'scale': [0.08, 1.0], 'ratio': [3 / 4, 4 / 3], 'hflip': 0.5, 'vflip': 0.0,
    'color_jitter': 0.4, 'color_jitter_prob': None, 'grayscale_prob': None, 'gaussian_blur_prob': None, 'aa': None,
    'train_interpolation': 'random'}
# Those that decide a mixture of two images.
MIXING = ('mixup', 'cutmix', 'cutmix_minmax', 'mixup_prob', 'mixup_switch_prob')
# Its arguments of the data set and of the student's images.
DATA: Dict[str, Any] = {
    'data_dir': None, 'dataset': '', 'train_split': 'train', 'class_map': '', 'input_img_mode': None, 'input_key': None,
    'target_key': None, 'img_size': None, 'input_size': None, 'crop_pct': None, 'mean': None, 'std': None,
    'interpolation': None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        'Runs a teacher once over every training image, without augmentation and with its own preprocessing; train '
        'with --kd-model-name logits:STORE. With --views V it runs over V augmented views of every image; train with '
        '--kd-model-name views:STORE. An interrupted command resumes when it is run again, and a larger V adds views '
        'to a store. Under torchrun, the ranks divide the images.')
    parser.add_argument('--model', required=True, nargs='+',
                        help='teacher: any model of timm, hf-hub:user/name or local-dir:folder; of several, the mean '
                             'of their probabilities is stored, and the logits of each in STORE-1, STORE-2, ...')
    parser.add_argument('--teacher-weights', type=float, nargs='+', metavar='W',
                        help='weights of several models in the mean (default: equal)')
    parser.add_argument('--checkpoint', type=path, metavar='FILE',
                        help="weights of a model of timm, such as train.py's model_best.pth.tar (its EMA if it has "
                             'one), which is then built and preprocesses as it was trained')
    parser.add_argument('--num-classes', type=positive, help='classes that the teacher must have')
    parser.add_argument('--in-chans', type=positive, help="input channels of the teacher (default: the model's)")
    parser.add_argument('--model-kwargs', type=key_value, nargs='+', default=[], metavar='KEY=VALUE',
                        help='constructor arguments of the teacher')
    parser.add_argument('--data-dir', metavar='DIR', help='data set, as for train.py')
    parser.add_argument('--dataset', metavar='NAME', help='type and name of the data set, as for train.py')
    parser.add_argument('--train-split', metavar='NAME', help='split of the data set (default: train)')
    parser.add_argument('--class-map', metavar='FILE', help='class to index mapping, as for train.py')
    parser.add_argument('--input-img-mode', metavar='MODE',
                        help='image mode, as for train.py (default: RGB for 3 channels, L otherwise)')
    parser.add_argument('--input-key', help='key of the images, as for train.py')
    parser.add_argument('--target-key', help='key of the labels, as for train.py')
    preprocessing = parser.add_argument_group(
        'preprocessing', "default: the teacher's own for tests; with --views: the student's, as for train.py")
    preprocessing.add_argument('--img-size', type=positive, help='height and width of the images')
    preprocessing.add_argument('--input-size', type=positive, nargs=3, help='channels, height and width')
    preprocessing.add_argument('--crop-pct', type=float, help='fraction of the short side inside the crop')
    preprocessing.add_argument('--mean', type=float, nargs='+', help='mean of the input')
    preprocessing.add_argument('--std', type=float, nargs='+', help='standard deviation of the input')
    preprocessing.add_argument('--interpolation', choices=INTERPOLATIONS, help='of the resizing')
    parser.add_argument('--output', type=path, required=True, metavar='STORE', help='folder of the store')
    parser.add_argument('--top-k', type=non_negative, metavar='K',
                        help='store the K largest logits per image and spread the rest evenly; 0 stores all '
                             '(default: 0; with --views: 10, or 0 for at most 10 classes)')
    parser.add_argument('--verify-content', action='store_true',
                        help='let training compare each whole image file with what the teacher saw, instead of its '
                             'size and 16 KiB at each end')
    parser.add_argument('--batch-size', type=positive, default=64, help='images per batch (default: 64)')
    parser.add_argument('--chunk-size', type=positive, default=1024,
                        help='images whose logits are written at once (default: 1024)')
    parser.add_argument('--workers', type=non_negative, default=4, help='processes that read images (default: 4)')
    parser.add_argument('--device', help='device of the teacher (default: CUDA if available)')
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on CUDA, bfloat16 elsewhere')
    _add_views(parser)


def _add_views(parser: argparse.ArgumentParser) -> None:
    views = parser.add_argument_group(
        'views', "The training to come, by train.py's own arguments: a configuration, and what overrides it.")
    views.add_argument('--views', type=positive, metavar='V', help='store V augmented views of every image')
    views.add_argument('-c', '--config', metavar='NAME_OR_FILE', help="the training's recipe or YAML file")
    views.add_argument('--student', metavar='MODEL',
                       help="the training's --model, which says size and mean of the images (default: the recipe's)")
    views.add_argument('--teacher-size', type=positive, nargs='+', metavar='N',
                       help="resize the views for the teacher: height and width, or one number for both (default: the "
                            "student's size)")
    views.add_argument('--view-seed', type=non_negative, default=0, metavar='N', help='seed of the views (default: 0)')
    views.add_argument('--mixed', action='store_true',
                       help="views of mixed images, by the training's --mixup, --cutmix, --cutmix-minmax, --mixup-prob "
                            "and --mixup-switch-prob: the teacher sees the mixture")
    views.add_argument('--no-aug', action='store_true', default=None)
    views.add_argument('--train-crop-mode', choices=('rrc', 'rkrc', 'rkrr', 'official'))
    views.add_argument('--scale', type=float, nargs=2)
    views.add_argument('--ratio', type=float, nargs=2)
    views.add_argument('--cutmix-minmax', type=float, nargs=2)
    for name in ('mixup', 'cutmix', 'mixup-prob', 'mixup-switch-prob'):
        views.add_argument(f'--{name}', type=float)
    for name in ('hflip', 'vflip', 'color-jitter', 'color-jitter-prob', 'grayscale-prob', 'gaussian-blur-prob'):
        views.add_argument(f'--{name}', type=float)
    views.add_argument('--aa', metavar='POLICY')
    views.add_argument('--train-interpolation', choices=('random', *INTERPOLATIONS))


def _apply_config(args: argparse.Namespace) -> None:
    """Set what the command line leaves open to the training's configuration or train.py's default."""
    from ..recipes import find_config, read_config

    given = [name for name in (*AUGMENTATION, *MIXING, 'config', 'student', 'teacher_size')
             if getattr(args, name) is not None] + ['mixed'] * args.mixed
    if args.views is None and given:
        raise UserError(f'{given[0]} needs `views`: logits are of unaugmented images')
    if not args.mixed and {*given} & {*MIXING}:
        raise UserError(f'{sorted({*given} & {*MIXING})[0]} needs `mixed`: other views are mixed in training')
    if args.views and args.verify_content:
        raise UserError('verify_content must be off with `views`: their pixels are always compared')
    config = read_config(find_config(args.config)) if args.config else {}
    for name, default in {**DATA, **AUGMENTATION, **dict.fromkeys(MIXING), 'student': config.get('model')}.items():
        if getattr(args, name) is None:
            setattr(args, name, config.get(name, default))


def _transform(args: argparse.Namespace, channels: int) -> Dict[str, Any]:
    """Return what train.py would give to ``create_loader`` for the student's images."""
    import torch
    from timm import create_model
    from timm.data import resolve_data_config

    from ..models.validation import check_model_source

    if not args.student:
        raise UserError('student must be the model of the training to come, or `config` must name one, got none')
    try:
        check_model_source(args.student)
    except UserError as e:
        raise UserError(f'student must be a model that timm builds: {e}') from e
    with torch.device('meta'):
        student = create_model(args.student)
    given = {name: getattr(args, name) for name in ('img_size', 'input_size', 'mean', 'std', 'interpolation')}
    config = resolve_data_config({'in_chans': channels, **given}, model=student)
    interpolation = config['interpolation'] if args.no_aug else args.train_interpolation or config['interpolation']
    arguments = {name: getattr(args, name) for name in AUGMENTATION if name not in ('aa', 'train_interpolation')}
    return dict(arguments, auto_augment=args.aa, interpolation=interpolation, input_size=config['input_size'],
                mean=config['mean'])


def _mixing(args: argparse.Namespace) -> Optional[Dict[str, Any]]:
    given = {name: getattr(args, name) for name in MIXING}
    return {name: value for name, value in given.items() if value is not None} if args.mixed else None


def _store_one(args: argparse.Namespace, name: str, output: Path, device: Any) -> Any:
    """Store the logits of one teacher and return what they belong to."""
    from timm.data import create_dataset

    from ..models.loading import load_source
    from ..timm_scripts.check import check_data, check_model
    from ..training import store_teacher_logits, store_teacher_views

    check_data(args.dataset, args.data_dir)
    kwargs = dict(args.model_kwargs)
    check_model(name, kwargs)
    for given in {*kwargs} & {'num_classes', 'pretrained', 'checkpoint_path'}:
        raise UserError(f'model_kwargs must be arguments that keep the weights, got {given!r}')
    in_chans = args.in_chans or (args.input_size or [None])[0]
    if in_chans is not None:
        kwargs['in_chans'] = in_chans
    if args.checkpoint is not None:
        check(args.checkpoint.is_file(), 'checkpoint', str(args.checkpoint), 'a file')
        check(':' not in name, 'checkpoint', str(args.checkpoint), 'left out with a folder or a repository')
    model = load_source(name if args.checkpoint is None else f'{name}={args.checkpoint}', **kwargs).model
    check(args.num_classes in (None, model.num_classes), 'num_classes', args.num_classes,
          f'{model.num_classes}, the classes of {name}')
    transform = _transform(args, getattr(model, 'in_chans', 3)) if args.views else {}
    mode = args.input_img_mode or ('RGB' if getattr(model, 'in_chans', 3) == 3 else 'L')
    try:
        dataset = create_dataset(
            args.dataset, root=args.data_dir, split=args.train_split, class_map=args.class_map, input_img_mode=mode,
            input_key=args.input_key, target_key=args.target_key)
    except (RuntimeError, AssertionError) as e:  # timm's errors for unknown data sets and empty folders
        raise UserError(f'data_dir {args.data_dir}: {type(e).__name__}: {error_line(e)[:300]}') from e
    running: Dict[str, Any] = dict(
        batch_size=args.batch_size, chunk_size=args.chunk_size, workers=args.workers, device=device, amp=args.amp)
    if args.views:
        return store_teacher_views(
            model, name, dataset, output, transform, args.views, args.top_k, args.view_seed, args.teacher_size,
            mixing=_mixing(args), **running)
    preprocessing = {key: getattr(args, key) for key in (
        'img_size', 'input_size', 'crop_pct', 'mean', 'std', 'interpolation')}
    return store_teacher_logits(
        model, name, dataset, output, args.top_k or 0, preprocessing=preprocessing,
        verify_content=args.verify_content, **running)


def run(args: argparse.Namespace) -> None:
    import os

    from ..data.samples import use_image_extensions
    from ..runtime.device import find_device
    from ..training import combine_stores

    _apply_config(args)
    several = len(args.model) > 1
    if several and args.checkpoint is not None:
        raise UserError(f'checkpoint must be left out with several models, got {args.checkpoint}')
    if len(args.teacher_weights or args.model) != len(args.model) or min(args.teacher_weights or [1]) <= 0:
        raise UserError(f'weights must be {len(args.model)} positive numbers, one per `model`, got '
                        f'{args.teacher_weights}')
    device = find_device(args.device)
    use_image_extensions()
    outputs = [args.output.with_name(f'{args.output.name}-{i + 1}') if several else args.output
               for i in range(len(args.model))]
    try:
        for name, output in zip(args.model, outputs):
            info = _store_one(args, name, output, device)
        if several:
            info = combine_stores(outputs, args.output, args.teacher_weights)
    except KeyboardInterrupt:
        print(f'\ninterrupted: {args.output} has the finished chunks, and the same command resumes')
        raise
    if int(os.environ.get('RANK', 0)) == 0:
        kind, what = ('views', f'{info.views} views') if args.views else ('logits', 'logits')
        what += ' of mixed images' if args.mixed else ''
        size = sum(path.stat().st_size for path in args.output.iterdir())
        print(f'{args.output}: {what} of {info.count} images in {info.num_classes} classes, {size / 1e6:.2f} MB; '
              f'train with --kd-model-name {kind}:{args.output} --kd-temperature 1')
