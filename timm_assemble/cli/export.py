"""``timm-assemble export``."""
import argparse
import sys
from pathlib import Path
from typing import Any, Dict, Tuple

from ..errors import UserError
from .arguments import positive

HELP = 'export a trained model to a file that runs without its Python code: torch program, compiled package, or ONNX'

GATE = ('agreement', 'sqnr', 'sure')


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
    parser.add_argument('--int8', action='store_true',
                        help='quantize *.onnx to int8; rejected if predictions on held-out images change too much')
    parser.add_argument('--calibrate', type=Path, metavar='FOLDER',
                        help='images for --int8, like those that the model will see: flat, or one folder per class')
    parser.add_argument('--images', dest='max_images', type=positive, metavar='N',
                        help='most images of --calibrate; a quarter calibrates, the others are held out; default: 512')
    parser.add_argument('--min-agreement', dest='agreement', type=float, metavar='PERCENT',
                        help='least equal top-1 predictions, of the images of which the model is sure; default: 99')
    parser.add_argument('--sure', type=float, metavar='PROBABILITY',
                        help='the model is sure from this top-1 probability on; default: 0.5')
    parser.add_argument('--min-sqnr', dest='sqnr', type=float, metavar='DB',
                        help='least signal-to-quantization-noise ratio of the logits; default: 10')
    parser.add_argument('--ignore-gate', action='store_true', help='write an int8 file that would be rejected')
    parser.add_argument('--force', action='store_true', help='replace OUTPUT if it exists')


def _format(output: Path, compiled: bool) -> str:
    if output.suffix not in ('.onnx', '.pt2'):
        raise UserError(f'output must end in .onnx or .pt2, got {output}')
    if compiled and output.suffix == '.onnx':
        raise UserError(f'compile needs an `output` that ends in .pt2, got {output}')
    return 'package' if compiled else {'.onnx': 'onnx', '.pt2': 'program'}[output.suffix]


def _check_int8(args: argparse.Namespace, kind: str) -> None:
    _gate(args)  # checks its values
    if not args.int8:
        options = ('calibrate', 'max_images', *GATE, 'ignore_gate')
        given = [name for name in options if getattr(args, name) is not None and getattr(args, name) is not False]
        if given:
            raise UserError(f'{given[0]} needs `int8`')
        return
    if kind != 'onnx':
        raise UserError(f'int8 needs an `output` that ends in .onnx, got {args.output}')
    if args.dtype != 'float32':
        raise UserError(f'int8 needs `dtype` float32, got {args.dtype}')
    if args.calibrate is None:
        raise UserError('int8 needs `calibrate`, a folder of images')


def _gate(args: argparse.Namespace) -> Any:
    from ..deploy.gate import Gate

    return Gate(**{name: getattr(args, name) for name in GATE if getattr(args, name) is not None})


def _export_int8(args: argparse.Namespace, source: Any, example_size: Tuple[int, ...], shared: Dict[str, Any]) -> str:
    """Export an int8 file and return what it loses."""
    from ..deploy.calibration import MAX_IMAGES, load_folder, split_images
    from ..deploy.quantize_onnx import export_quantized

    gate = _gate(args)
    images, skipped = load_folder(args.calibrate, source, example_size[1:], args.max_images or MAX_IMAGES)
    for line in skipped:
        print(f'skipped: {line}', file=sys.stderr)
    measured = export_quantized(
        source.model, args.output, example_size, split_images([images], example_size[1:], len(images)), gate,
        ignore_gate=args.ignore_gate, **shared)
    return f'{measured}{" (below the gate)" if not gate.is_passed(measured) else ""}'


def run(args: argparse.Namespace) -> None:
    import torch

    from ..data.preprocessing import size_of
    from ..deploy.export import check_format, check_output, export_model
    from ..deploy.metadata import source_metadata
    from ..models.loading import load_source

    kind, dtype = _format(args.output, args.compile), getattr(torch, args.dtype)
    sides = args.example_size
    check_output(args.output, args.force)
    check_format(kind, dtype, args.any_size)
    _check_int8(args, kind)
    source = load_source(args.model)
    pre = source.preprocessing
    size = (pre.channels, *(size_of(sides, 'example_size') if sides else pre.size))
    inside = args.normalize_inside
    shared = dict(
        any_batch=not args.batch_size, any_size=args.any_size, metadata=source_metadata(source, args.model),
        normalization=(pre.mean, pre.std) if inside else None)
    example_size = (args.batch_size or 1, *size)
    if args.int8:
        difference = _export_int8(args, source, example_size, shared)
    else:
        difference = (f"logits differ from the model's by "
                      f'{export_model(source.model, args.output, example_size, kind, dtype, **shared):.1e} of their '
                      'standard deviation')
    free = [word for word, is_free in (('batch size', not args.batch_size), ('size', args.any_size)) if is_free]
    print(f'{kind} of {source.architecture}, {"int8" if args.int8 else args.dtype}, images {" x ".join(map(str, size))}'
          f'{", any " + " and ".join(free) if free else ""}; {difference}')
    if inside:
        print(f'input: uint8, (B, H, W, {size[0]}), normalized inside')
    else:
        print('preprocessing: float32 from 0 to 1, minus mean ({}), divided by std ({})'.format(
            *(', '.join(f'{v:.4g}' for v in values) for values in (pre.mean, pre.std))))
    print(f'written: {args.output}, {args.output.stat().st_size / 1e6:.1f} MB')
