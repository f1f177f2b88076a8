"""``timm-assemble export``."""
import argparse
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

from ..errors import UserError, check
from .arguments import path, positive

HELP = 'export a trained model to a file that runs without its Python code: of torch, ONNX, OpenVINO or ExecuTorch'

GATE = ('agreement', 'sqnr', 'sure')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', metavar='MODEL',
                        help="timm's name of a pretrained model, hf-hub:USER/NAME, local-dir:FOLDER or NAME=CHECKPOINT")
    parser.add_argument('output', type=path, metavar='OUTPUT',
                        help='file to write: *.onnx, *.pt2, *.pte of ExecuTorch, *.xml of OpenVINO (weights in *.bin)')
    parser.add_argument('--format', choices=('program', 'package', 'onnx', 'openvino', 'executorch'),
                        help="default: by OUTPUT's ending; package is *.pt2 compiled for this kind of processor")
    parser.add_argument('--opset', type=positive, help="of ONNX; default: the exporter's")
    parser.add_argument('--dtype', choices=('float32', 'bfloat16', 'float16'), default='float32',
                        help='of the weights; default: float32')
    parser.add_argument('--size', dest='example_size', type=positive, nargs='+', metavar='PIXELS',
                        help="height and width, or one number for both; default: the model's test size")
    parser.add_argument('--any-size', action='store_true', help='accept images of any size')
    parser.add_argument('--normalize-inside', action='store_true',
                        help='take uint8 images (B, H, W, 3): scaling, normalization and layout are part of the file')
    parser.add_argument('--batch-size', type=positive,
                        help='accept only this batch size; default: any, of ExecuTorch 1')
    parser.add_argument('--int8', action='store_true',
                        help='quantize ONNX or OpenVINO to int8; rejected if held-out predictions change too much')
    parser.add_argument('--calibrate', type=path, metavar='FOLDER',
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


def _format(output: Path, format: Optional[str]) -> str:
    from ..deploy.export import ENDINGS

    check(output.suffix in ENDINGS, 'output', str(output), f'a file *{", *".join(ENDINGS)}')
    allowed = ENDINGS[output.suffix]
    check(format in (None, *allowed), 'format', format, f'{" or ".join(allowed)} for {output}')
    return format or allowed[0]


def _gate(args: argparse.Namespace) -> Any:
    from ..deploy.gate import Gate

    return Gate(**{name: getattr(args, name) for name in GATE if getattr(args, name) is not None})


def _check_int8(args: argparse.Namespace) -> None:
    _gate(args)  # checks its values
    options = ('calibrate', 'max_images', *GATE, 'ignore_gate')
    given = [name for name in options if getattr(args, name) is not None and getattr(args, name) is not False]
    if given and not args.int8:
        raise UserError(f'{given[0]} needs `int8`')
    if args.int8 and args.calibrate is None:
        raise UserError('int8 needs `calibrate`, a folder of images')
    if args.max_images is not None:
        from ..deploy.calibration import MIN_IMAGES

        check(args.max_images >= MIN_IMAGES, 'max_images', args.max_images, f'{MIN_IMAGES} or more')


def _calibration(args: argparse.Namespace, source: Any, size: Sequence[int]) -> Any:
    from ..deploy.calibration import MAX_IMAGES, load_folder, split_images

    images, skipped = load_folder(args.calibrate, source, size, args.max_images or MAX_IMAGES)
    for line in skipped:
        print(f'skipped: {line}', file=sys.stderr)
    return split_images([images], size, len(images))


def _result(found: Any, gate: Any) -> str:
    if isinstance(found, float):
        return f"logits differ from the model's by {found:.1e} of their standard deviation"
    return f'{found}{"" if gate.is_passed(found) else " (below the gate)"}'


def run(args: argparse.Namespace) -> None:
    import torch

    from ..data.preprocessing import size_of
    from ..deploy.export import check_format, check_output, export_model, files_of
    from ..deploy.metadata import source_metadata
    from ..models.loading import load_source

    kind, dtype = _format(args.output, args.format), getattr(torch, args.dtype)
    sides = size_of(args.example_size, 'example_size') if args.example_size else None
    check_output(args.output, args.force, kind)
    _check_int8(args)
    check_format(kind, dtype, args.any_size, args.opset, args.int8)
    source = load_source(args.model)
    pre, inside, gate = source.preprocessing, args.normalize_inside, _gate(args)
    size = (pre.channels, *(sides or pre.size))
    any_batch = not args.batch_size and kind != 'executorch'
    results = export_model(
        source.model, args.output, (args.batch_size or 1, *size), kind, dtype, any_batch, args.any_size,
        metadata=source_metadata(source, args.model), normalization=(pre.mean, pre.std) if inside else None,
        opset=args.opset, calibration=_calibration(args, source, size) if args.int8 else None, gate=gate,
        ignore_gate=args.ignore_gate)
    free = [word for word, is_free in (('batch size', any_batch), ('size', args.any_size)) if is_free]
    print(f'{kind} of {source.architecture}, {"int8" if args.int8 else args.dtype}, images {" x ".join(map(str, size))}'
          f'{", any " + " and ".join(free) if free else ""}')
    for runtime, found in results.items():
        print(f'checked in {runtime}: {_result(found, gate)}')
    if inside:
        print(f'input: uint8, (B, H, W, {size[0]}), normalized inside')
    else:
        print('preprocessing: float32 from 0 to 1, minus mean ({}), divided by std ({})'.format(
            *(', '.join(f'{v:.4g}' for v in values) for values in (pre.mean, pre.std))))
    files = files_of(args.output, kind)
    print(f'written: {args.output}, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB')
