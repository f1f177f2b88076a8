"""``timm-assemble teacher-logits``."""
import argparse
from pathlib import Path

from .arguments import key_value, positive

HELP = "store a teacher's logits of a training set, for distillation without a teacher"


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'must be a whole number from 0, got {text!r}')
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        'Runs a teacher once over every training picture, without augmentation and with its own preprocessing. Train '
        'with --kd-model-name logits:STORE. Stopped at any moment, the same command goes on. Under torchrun the '
        'processes share the work.')
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument('--model', required=True,
                        help='teacher: any model of timm, hf-hub:user/name or local-dir:folder')
    parser.add_argument('--checkpoint', type=Path, metavar='FILE',
                        help="weights of the teacher, such as train.py's model_best.pth.tar (its EMA if there is one)")
    parser.add_argument('--num-classes', type=positive, help="classes of the checkpoint (default: the model's)")
    parser.add_argument('--model-kwargs', type=key_value, nargs='+', default=[], metavar='KEY=VALUE',
                        help='constructor arguments of the teacher')
    parser.add_argument('--data-dir', metavar='DIR', help='data set, as for train.py')
    parser.add_argument('--dataset', default='', metavar='NAME', help='its type and name, as for train.py')
    parser.add_argument('--train-split', default='train', metavar='NAME', help='split to run over')
    parser.add_argument('--class-map', default='', metavar='FILE', help='class to index mapping, as for train.py')
    parser.add_argument('--input-key', help='key of the pictures, as for train.py')
    parser.add_argument('--target-key', help='key of the labels, as for train.py')
    for name, kind, count, what in (
            ('img-size', int, None, 'side of the pictures'), ('input-size', int, 3, 'channels, height and width'),
            ('crop-pct', float, None, 'share of the short side that is kept'),
            ('mean', float, '+', 'mean of the input'),
            ('std', float, '+', 'standard deviation of the input'), ('interpolation', str, None, 'of the resizing')):
        parser.add_argument(f'--{name}', type=kind, nargs=count, help=f"{what} (default: the teacher's own, for tests)")
    parser.add_argument('--output', type=Path, required=True, metavar='STORE', help='folder to make, or to go on with')
    parser.add_argument('--top-k', type=_whole, default=0, metavar='K',
                        help='keep the K largest logits of each picture and spread the rest evenly; 0 keeps all')
    parser.add_argument('--batch-size', type=positive, default=64, help='pictures run at once')
    parser.add_argument('--chunk-size', type=positive, default=1024, help='pictures whose logits are written at once')
    parser.add_argument('--workers', type=_whole, default=4, help='processes that read pictures')
    parser.add_argument('--device', help='device of the teacher (default: CUDA if there is one)')
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on CUDA, bfloat16 elsewhere')


def run(args: argparse.Namespace) -> None:
    import os

    import torch
    from timm import create_model
    from timm.data import create_dataset

    from ..training import store_teacher_logits

    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if device == 'cuda' and 'LOCAL_RANK' in os.environ:
        device = f'cuda:{os.environ["LOCAL_RANK"]}'
    if not args.data_dir and '/' not in args.dataset:
        raise ValueError('--data-dir must name the folder of the training pictures')
    if args.data_dir and not args.dataset and not Path(args.data_dir).exists():
        raise ValueError(f'--data-dir {args.data_dir} does not exist')
    if args.checkpoint is not None and not args.checkpoint.is_file():
        raise ValueError(f'--checkpoint must be a file, got {args.checkpoint}')
    kwargs = dict(args.model_kwargs, num_classes=args.num_classes)
    try:
        if args.checkpoint is not None:
            model = create_model(args.model, checkpoint_path=str(args.checkpoint), **kwargs)
        else:
            model = create_model(args.model, pretrained=True, **kwargs)
    except (RuntimeError, TypeError) as e:  # how timm tells of unknown names and of weights that do not fit
        raise ValueError(f'--model {args.model}: {" ".join(str(e).split())[:300]}') from e
    try:
        dataset = create_dataset(
            args.dataset, root=args.data_dir, split=args.train_split, class_map=args.class_map,
            input_key=args.input_key, target_key=args.target_key)
    except (RuntimeError, AssertionError) as e:  # how timm tells of unknown data sets and empty folders
        raise ValueError(f'--data-dir {args.data_dir}: {" ".join(str(e).split())[:300]}') from e
    preprocessing = {name: getattr(args, name) for name in (
        'img_size', 'input_size', 'crop_pct', 'mean', 'std', 'interpolation')}
    try:
        info = store_teacher_logits(
            model, args.model, dataset, args.output, args.top_k, args.batch_size, args.chunk_size, args.workers, device,
            args.amp, preprocessing)
    except KeyboardInterrupt:
        print(f'\nstopped; the finished chunks lie in {args.output}, and the same command goes on')
        raise
    if int(os.environ.get('RANK', 0)) == 0:
        size = sum(path.stat().st_size for path in args.output.iterdir())
        print(f'{args.output}: logits of {info.count} pictures in {info.num_classes} classes, {size / 1e6:.2f} MB; '
              f'train with --kd-model-name logits:{args.output} --kd-temperature 1')
