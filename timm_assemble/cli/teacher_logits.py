"""``timm-assemble teacher-logits``."""
import argparse
from pathlib import Path
from typing import Any

from .arguments import key_value, non_negative, positive

HELP = "store a teacher's logits of a training set, for distillation without running the teacher"
PARAMETERS = {'dataset': '--data-dir'}
INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'box', 'hamming', 'lanczos')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        'Runs a teacher once over every training image, without augmentation and with its own preprocessing. Train '
        'with --kd-model-name logits:STORE. An interrupted command resumes when it is run again. Under torchrun, the '
        'ranks divide the images.')
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument('--model', required=True,
                        help='teacher: any model of timm, hf-hub:user/name or local-dir:folder')
    parser.add_argument('--checkpoint', type=Path, metavar='FILE',
                        help="weights of the teacher, such as train.py's model_best.pth.tar (its EMA if it has one)")
    parser.add_argument('--num-classes', type=positive, help="classes of the checkpoint (default: the model's)")
    parser.add_argument('--in-chans', type=positive, help="input channels of the teacher (default: the model's)")
    parser.add_argument('--model-kwargs', type=key_value, nargs='+', default=[], metavar='KEY=VALUE',
                        help='constructor arguments of the teacher')
    parser.add_argument('--data-dir', metavar='DIR', help='data set, as for train.py')
    parser.add_argument('--dataset', default='', metavar='NAME', help='type and name of the data set, as for train.py')
    parser.add_argument('--train-split', default='train', metavar='NAME', help='split of the data set')
    parser.add_argument('--class-map', default='', metavar='FILE', help='class to index mapping, as for train.py')
    parser.add_argument('--input-img-mode', metavar='MODE',
                        help='image mode, as for train.py (default: RGB for 3 channels, L otherwise)')
    parser.add_argument('--input-key', help='key of the images, as for train.py')
    parser.add_argument('--target-key', help='key of the labels, as for train.py')
    preprocessing = parser.add_argument_group("preprocessing (default: the teacher's own for tests)")
    preprocessing.add_argument('--img-size', type=positive, help='height and width of the images')
    preprocessing.add_argument('--input-size', type=positive, nargs=3, help='channels, height and width')
    preprocessing.add_argument('--crop-pct', type=float, help='fraction of the short side inside the crop')
    preprocessing.add_argument('--mean', type=float, nargs='+', help='mean of the input')
    preprocessing.add_argument('--std', type=float, nargs='+', help='standard deviation of the input')
    preprocessing.add_argument('--interpolation', choices=INTERPOLATIONS, help='of the resizing')
    parser.add_argument('--output', type=Path, required=True, metavar='STORE', help='folder of the store')
    parser.add_argument('--top-k', type=non_negative, default=0, metavar='K',
                        help='store the K largest logits per image and spread the rest evenly; 0 stores all')
    parser.add_argument('--batch-size', type=positive, default=64, help='images per batch')
    parser.add_argument('--chunk-size', type=positive, default=1024, help='images whose logits are written at once')
    parser.add_argument('--workers', type=non_negative, default=4, help='worker processes that read images')
    parser.add_argument('--device', help='device of the teacher (default: CUDA if available)')
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on CUDA, bfloat16 elsewhere')


def _create_teacher(args: argparse.Namespace) -> Any:
    from timm import create_model

    in_chans = args.in_chans or (args.input_size or [None])[0]
    kwargs = {'num_classes': args.num_classes, 'in_chans': in_chans, **dict(args.model_kwargs)}
    weights = {'checkpoint_path': str(args.checkpoint)} if args.checkpoint is not None else {'pretrained': True}
    try:
        return create_model(args.model, **weights, **kwargs)
    except Exception as e:  # timm reports unknown names, bad configurations and wrong weights by errors of many kinds
        raise ValueError(f'--model {args.model}: {_one_line(e)}') from e


def _one_line(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'


def run(args: argparse.Namespace) -> None:
    import os

    import torch
    from timm.data import create_dataset

    from ..models.validation import check_model_source, check_weights
    from ..timm_scripts.check import check_data, check_model
    from ..training import store_teacher_logits
    from ..training.precompute_logits import available_device

    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if device == 'cuda' and 'LOCAL_RANK' in os.environ:
        device = f'cuda:{os.environ["LOCAL_RANK"]}'
    available_device(device)
    check_data(args.dataset, args.data_dir)
    check_model(args.model, dict(args.model_kwargs))
    check_model_source(args.model)
    if args.checkpoint is not None and not args.checkpoint.is_file():
        raise ValueError(f'--checkpoint must be a file, got {args.checkpoint}')
    model = _create_teacher(args)
    check_weights(model.state_dict(), f'model {args.model}')
    mode = args.input_img_mode or ('RGB' if getattr(model, 'in_chans', 3) == 3 else 'L')
    try:
        dataset = create_dataset(
            args.dataset, root=args.data_dir, split=args.train_split, class_map=args.class_map, input_img_mode=mode,
            input_key=args.input_key, target_key=args.target_key)
    except (RuntimeError, AssertionError) as e:  # timm's errors for unknown data sets and empty folders
        raise ValueError(f'--data-dir {args.data_dir}: {_one_line(e)}') from e
    preprocessing = {name: getattr(args, name) for name in (
        'img_size', 'input_size', 'crop_pct', 'mean', 'std', 'interpolation')}
    try:
        info = store_teacher_logits(
            model, args.model, dataset, args.output, args.top_k, args.batch_size, args.chunk_size, args.workers, device,
            args.amp, preprocessing)
    except KeyboardInterrupt:
        print(f'\ninterrupted: {args.output} has the finished chunks, and the same command resumes')
        raise
    if int(os.environ.get('RANK', 0)) == 0:
        size = sum(path.stat().st_size for path in args.output.iterdir())
        print(f'{args.output}: logits of {info.count} images in {info.num_classes} classes, {size / 1e6:.2f} MB; '
              f'train with --kd-model-name logits:{args.output} --kd-temperature 1')
