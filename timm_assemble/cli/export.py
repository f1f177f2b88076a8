"""``timm-assemble export``."""
import argparse
from pathlib import Path

from .arguments import positive

HELP = 'export a trained model to a file that runs without its Python code: torch program, compiled package, or ONNX'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', metavar='MODEL',
                        help="timm's name of a pretrained model, hf-hub:USER/NAME, local-dir:FOLDER or NAME=CHECKPOINT")
    parser.add_argument('output', type=Path, metavar='OUTPUT', help='file to write: *.onnx or *.pt2')
    parser.add_argument('--compile', action='store_true',
                        help='compile *.pt2 for this kind of processor instead of writing a program for any')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16', 'float16'), default='float32',
                        help='of the weights; default: float32')
    parser.add_argument('--size', dest='example_size', type=positive, nargs='+', metavar='PIXELS',
                        help="height and width, or one number for both; default: the model's test size")
    parser.add_argument('--any-size', action='store_true', help='accept images of any size')
    parser.add_argument('--normalize-inside', action='store_true',
                        help='take uint8 images (B, H, W, 3): scaling, normalization and layout are part of the file')
    parser.add_argument('--batch-size', type=positive, help='accept only this batch size; default: any')
    parser.add_argument('--force', action='store_true', help='replace OUTPUT if it exists')


def _format(output: Path, compiled: bool) -> str:
    if output.suffix not in ('.onnx', '.pt2'):
        raise ValueError(f'output must end in .onnx or .pt2, got {output}')
    if compiled and output.suffix == '.onnx':
        raise ValueError(f'compile needs an `output` that ends in .pt2, got {output}')
    return 'package' if compiled else {'.onnx': 'onnx', '.pt2': 'program'}[output.suffix]


def run(args: argparse.Namespace) -> None:
    import torch

    from ..deploy.export import check_format, check_output, export_model
    from ..deploy.metadata import source_metadata
    from ..models.loading import load_source

    kind, dtype = _format(args.output, args.compile), getattr(torch, args.dtype)
    sides = args.example_size
    if sides is not None and len(sides) > 2:
        raise ValueError(f'example_size must be one or two integers, got {len(sides)}')
    check_output(args.output, args.force)
    check_format(kind, dtype, args.any_size)
    source = load_source(args.model)
    size = (source.input_size[0], *((sides * 2)[:2] if sides else source.input_size[1:]))
    inside = args.normalize_inside
    difference = export_model(
        source.model, args.output, (args.batch_size or 1, *size), kind, dtype, not args.batch_size, args.any_size,
        source_metadata(source, args.model), (source.mean, source.std) if inside else None)
    free = [word for word, is_free in (('batch size', not args.batch_size), ('size', args.any_size)) if is_free]
    print(f'{kind} of {source.architecture}, {args.dtype}, images {" x ".join(map(str, size))}'
          f'{", any " + " and ".join(free) if free else ""}; logits differ from the model\'s by '
          f'{difference:.1e} of their standard deviation')
    if inside:
        print(f'input: uint8, (B, H, W, {size[0]}), normalized inside')
    else:
        print('preprocessing: float32 from 0 to 1, minus mean ({}), divided by std ({})'.format(
            *(', '.join(f'{v:.4g}' for v in values) for values in (source.mean, source.std))))
    print(f'written: {args.output}, {args.output.stat().st_size / 1e6:.1f} MB')
