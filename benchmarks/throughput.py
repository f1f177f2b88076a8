"""Images/s beside timm's models. ``python -m benchmarks.throughput``

Networks of this package and of timm, in inference and training, eager and optimized, interleaved within each group.
"""
import argparse
import gc
import sys
from functools import partial
from statistics import median
from typing import Any, Callable, Dict, List, Sequence

import timm
import torch

from timm_assemble.cli.arguments import positive

from .harness.cli import finish, parse_args
from .harness.machine import MATRIX_PRODUCT, limit_cases, limit_details, share_of_limit
from .harness.measure import make_row, write_results
from .harness.networks import (
    DTYPES, FORMS, MOBILE, MODES, REFERENCE, SIZES, Network, Setting, compile_separately, describe, forget_compiled,
    prepare, split,
)
from .reports.published import published

QUESTION = "How many images/s, beside timm's models and the limit of the machine?"
EVERY, BATCH_SIZE = 'all', 4
# Networks of the optimized forms by default: a compilation takes minutes.
_MAIN = (
    'resnet50d', 'seresnet50', 'skresnet50d', 'resnetaa50d', 'assemble_resnet50_d', 'assemble_resnet50_bl_sk',
    'assemble_resnet50', 'assemble_resnet152', 'resnet152', 'tf_efficientnet_b4', 'tf_efficientnet_b6', 'convnext_tiny',
    *MOBILE)
DEFAULTS = {
    ('inference', 'eager'): tuple(SIZES),
    ('inference', 'optimized'): _MAIN,
    ('training', 'eager'): (
        'resnet50d', 'seresnet50', 'skresnet50d', 'resnetaa50d', 'convnext_tiny', 'assemble_resnet50_d',
        'assemble_resnet50_bl_sk', 'assemble_resnet50'),
    ('training', 'optimized'): (),
}
INT8 = ('assemble_resnet50', 'assemble_resnet152', 'tf_efficientnet_b4', 'convnext_tiny', *MOBILE)  # the default
SHORT = {
    ('inference', 'eager'): ('assemble_resnet50', 'convnext_tiny'), ('inference', 'optimized'): ('convnext_tiny',),
    ('training', 'eager'): ('assemble_resnet50',), ('training', 'optimized'): (),
}
TRAINING_MACS = 3  # times a forward pass: the gradients of features and of weights cost as much again, each
OURS, THEIRS, AIM = 'assemble_resnet152', 'tf_efficientnet_b6', 3.0  # the aim is a ratio of speeds


def _known_model(name: str) -> str:
    if name != EVERY and name not in timm.list_models():
        raise argparse.ArgumentTypeError(f'must be a model of timm or of this package, or {EVERY!r}, got {name!r}')
    return name


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is measured; every combination is a group."""
    parser.add_argument(
        '--models', nargs='+', type=_known_model, default=[], metavar='NAME',
        help=f'models beside {REFERENCE}, or {EVERY!r} (a default for each mode and form)')
    parser.add_argument('--modes', nargs='+', choices=MODES, default=list(MODES), help='(all)')
    parser.add_argument('--forms', nargs='+', choices=FORMS, default=list(FORMS), help='(all)')
    parser.add_argument(
        '--dtypes', nargs='+', choices=DTYPES,
        help='(float32 bfloat16; with --short float32); eager is autocast, int8 is of optimized inference alone')
    parser.add_argument(
        '--batch-sizes', nargs='+', type=positive, default=[BATCH_SIZE], metavar='N', help='(%(default)s)')


def groups(args: argparse.Namespace) -> List[Setting]:
    """Return the settings to measure.

    Raises:
        ValueError: Training in float16, which would need a gradient scaler, or with batch size 1; int8 without
            optimized inference on the CPU.
    """
    dtypes = args.dtypes or (['float32'] if args.short else ['float32', 'bfloat16'])
    if 'training' in args.modes and 'float16' in dtypes:
        raise ValueError("--dtypes float16: training takes 'float32' or 'bfloat16'; add --modes inference")
    if 'training' in args.modes and 1 in args.batch_sizes:
        raise ValueError('--batch-sizes 1: training takes 2 or more, for batch norm; add --modes inference')
    int8 = 'inference', 'optimized'
    if 'int8' in dtypes and not (int8[0] in args.modes and int8[1] in args.forms and args.device == 'cpu'):
        raise ValueError('--dtypes int8: needs --modes inference, --forms optimized and --device cpu')
    return [
        Setting(mode, form, dtype, batch_size) for mode in dict.fromkeys(args.modes)
        for form in dict.fromkeys(args.forms) for dtype in dict.fromkeys(dtypes)
        if dtype != 'int8' or (mode, form) == int8
        for batch_size in dict.fromkeys(args.batch_sizes)]


def chosen(args: argparse.Namespace, setting: Setting) -> Sequence[str]:
    """Return the models of a setting; the reference is measured beside them."""
    default = INT8 if setting.dtype == 'int8' else (SHORT if args.short else DEFAULTS)[setting.mode, setting.form]
    names = args.models or default
    return tuple(dict.fromkeys(SIZES if EVERY in names else names))


def published_details(name: str) -> Dict[str, Any]:
    """Return the columns of published top-1, with and without more data."""
    details: Dict[str, Any] = {}
    for entry in published(name):
        if entry.extra_data:
            details.setdefault('top-1 with extra data (%)', f'{entry.top1:.2f} ({entry.weights})')
        elif 'top-1 (%)' not in details:
            details |= {'top-1 (%)': entry.top1, 'published as': entry.weights}
    return details


def group_rows(
        networks: Sequence[Network], setting: Setting, suffix: str, device: str, measure: Callable[..., Any],
) -> List[Dict[str, Any]]:
    """Measure the reference, the networks and the machine's limits, interleaved."""
    reference = describe(REFERENCE, setting.mode)
    everyone = {network.name: network for network in (reference, *networks)}
    prepared = {}
    for name, network in everyone.items():
        prepared[name] = prepare(network, setting, device)
        gc.collect()  # the eager model is not needed after it was optimized
        if prepared[name].cold_start_s is not None:
            print(f'{setting.title}: {name} compiled in {prepared[name].cold_start_s:.0f} s', flush=True)
    limits = limit_cases(device, DTYPES[setting.dtype])
    seconds = measure({**{name: case.call for name, case in prepared.items()}, **limits})
    factor = (TRAINING_MACS if setting.mode == 'training' else 1) * setting.batch_size
    row = partial(make_row, setting.title + suffix, seconds=seconds)
    rows = []
    for name, network in everyone.items():
        middle = median(seconds[name])
        details: Dict[str, Any] = {
            'size': network.size, 'params (M)': network.params / 1e6, 'GMACs': network.macs / 1e9,
            **(published_details(name) if setting.mode == 'inference' else {}),
            'images/s': setting.batch_size / middle,
            'GMAC/s': factor * network.macs / middle / 1e9,
            'share of limit': share_of_limit(
                factor * network.macs, seconds[name], seconds[MATRIX_PRODUCT], device)}
        cold_start = prepared[name].cold_start_s
        if cold_start is not None:
            details['cold start (s)'] = cold_start
        against = None if name == REFERENCE else REFERENCE
        rows.append(row(name, reference=against, of='speed', **details))
    rows += [row(name, **limit_details(name, device, median(seconds[name]))) for name in limits]
    if OURS in everyone and THEIRS in everyone and setting.mode == 'inference':
        row = partial(make_row, f'{setting.title}, {OURS} beside {THEIRS}', seconds=seconds)
        pair = [row(THEIRS), row(OURS, reference=THEIRS, of='speed', aim=AIM)]
        for one in pair:
            name = one['name']
            top1 = ', '.join(f'{p.top1:.2f} ({p.weights})' for p in published(name) if not p.extra_data)
            one['details'] |= {
                'size': everyone[name].size, 'GMACs': everyone[name].macs / 1e9, 'top-1 (%)': top1,
                'images/s': setting.batch_size / median(seconds[name])}
        rows += pair
    return rows


def main() -> int:
    """Run the benchmark; return 1 if a bound is broken, 2 for a wrong option.

    Until it ends, finished groups are in a file with the suffix ``.part``.
    """
    args = parse_args('throughput', QUESTION, rounds=6, options=add_options)
    try:
        settings = groups(args)
    except ValueError as e:
        print(f'python -m benchmarks.throughput: error: {e}', file=sys.stderr)
        return 2
    if args.device == 'cuda':
        # torch computes float32 convolutions in TF32 by default; so must the matrix product, their limit
        torch.set_float32_matmul_precision('high')
        torch.backends.cudnn.benchmark = True
    compile_separately()
    unfinished = args.output.with_suffix('.part')
    rows: List[Dict[str, Any]] = []
    for setting in settings:
        names = chosen(args, setting)
        networks = [describe(name, setting.mode) for name in names if name != REFERENCE]
        for suffix, part in (split(networks) or ({'': []} if names else {})).items():
            large = suffix != ''
            measure = partial(
                args.measure, rounds=max(2, args.rounds // 2) if large else args.rounds, warmup=1 if large else 3)
            rows += group_rows(part, setting, suffix, args.device, measure)
            print(f'{setting.title}{suffix}: measured', flush=True)
            write_results(unfinished, QUESTION, args.command, args.environment, rows)  # survives an interrupt
            forget_compiled()
    if not rows:
        print('python -m benchmarks.throughput: error: no models for this: name them by --models', file=sys.stderr)
        return 2
    status = finish(args, QUESTION, rows)
    unfinished.unlink()
    return status


if __name__ == '__main__':
    sys.exit(main())
