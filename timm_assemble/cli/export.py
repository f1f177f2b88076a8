"""``timm-assemble export``."""
import argparse
from pathlib import Path

from .arguments import positive

HELP = 'a trained model to a file that runs without its Python code: torch program, compiled package, or ONNX'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument('model', metavar='MODEL',
                        help="timm's name of one with weights, hf-hub:USER/NAME, local-dir:FOLDER or NAME=CHECKPOINT")
    parser.add_argument('output', type=Path, metavar='OUTPUT', help='file to make: *.onnx, or *.pt2')
    parser.add_argument('--compile', action='store_true',
                        help='make *.pt2 compiled for this kind of processor, and not a program for any')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16', 'float16'), default='float32', help='of the weights')
    parser.add_argument('--size', type=positive, nargs='+', metavar='PIXELS',
                        help="height and width, or one for both; the model's test size if not given")
    parser.add_argument('--any-size', action='store_true', help='take pictures of any size, SIZE being an example')
    parser.add_argument('--batch-size', type=positive, help='fixed number of pictures; any number if not given')
    parser.add_argument('--force', action='store_true', help='replace OUTPUT if it is there')


def _format(output: Path, compiled: bool) -> str:
    if output.suffix not in ('.onnx', '.pt2'):
        raise ValueError(f'OUTPUT must end in .onnx or .pt2, got {output}')
    if output.suffix == '.onnx':
        if compiled:
            raise ValueError(f'--compile is for *.pt2, got {output}')
        return 'onnx'
    return 'package' if compiled else 'program'


def run(args: argparse.Namespace) -> None:
    import torch

    from ..deploy.export import check_output, export_model, load_exported
    from ..models.loading import load_source

    kind = _format(args.output, args.compile)
    if args.size is not None and len(args.size) > 2:
        raise ValueError(f'--size must be one or two whole numbers, got {len(args.size)}')
    check_output(args.output, kind, args.force)
    source = load_source(args.model)
    model = source.model
    height, width = (args.size * 2)[:2] if args.size else source.input_size[1:]
    size = (args.batch_size or 1, source.input_size[0], height, width)
    notes = dict(
        model=source.architecture, source=args.model, num_classes=source.num_classes, dtype=args.dtype,
        input_size=[*source.input_size[:1], height, width], mean=[*source.mean], std=[*source.std],
        interpolation=source.interpolation, crop_pct=source.crop_pct, weights_sha256=source.checksum)
    free = [word for word, is_free in (('batch', not args.batch_size), ('size', args.any_size)) if is_free]
    export_model(
        model, args.output, size, kind, getattr(torch, args.dtype), not args.batch_size, args.any_size, notes)

    x = torch.randn(args.batch_size or 3, *size[1:])
    with torch.no_grad():
        expected, got = model(x), load_exported(args.output, kind)(x)
    difference = (got - expected).abs().max() / expected.std()
    print(f'{kind} of {source.architecture}, {args.dtype}, pictures {" x ".join(map(str, size[1:]))}'
          f'{", any " + " and ".join(free) if free else ""}; outputs differ from the model\'s by '
          f'{difference:.1e} of their standard deviation')
    print('pictures: float32 from 0 to 1, less mean ({}), over std ({})'.format(
        *(', '.join(f'{v:.4g}' for v in values) for values in (source.mean, source.std))))
    print(f'written: {args.output}, {args.output.stat().st_size / 1e6:.1f} MB')
