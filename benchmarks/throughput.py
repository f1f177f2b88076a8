"""Images/s beside timm's models. ``python -m benchmarks.throughput``

Networks of this package and of timm, in inference and training, eager and optimized, interleaved within each group.
"""
import argparse
import gc
import sys
from functools import partial
from statistics import median
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import torch

from .harness.cli import finish, parse_args
from .harness.measure import make_row, write_results
from .harness.networks import (
    DTYPES, FORMS, MOBILE, MODES, REFERENCE, RIVALS, SIZES, Network, Setting, describe, forget_compiled, prepare, split,
)

QUESTION = "How many images/s, beside timm's models?"
EVERY, BATCH_SIZE = 'all', 4
# Networks of the optimized forms by default: a compilation takes minutes.
_MAIN = (
    'resnet50d', 'assemble_resnet50_d', 'assemble_resnet50_bl_sk', 'assemble_resnet50', 'assemble_resnet152',
    'resnet152', 'tf_efficientnet_b4', 'tf_efficientnet_b6', 'convnext_tiny', *RIVALS, *MOBILE)
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
OURS, THEIRS = 'assemble_resnet152', 'tf_efficientnet_b6'  # get a group of their own


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is measured; every combination is a group."""
    parser.add_argument(
        '--models', nargs='+', default=[], metavar='NAME',
        help=f'models beside {REFERENCE}, or {EVERY!r} (a default for each mode and form)')
    parser.add_argument('--modes', nargs='+', choices=MODES, default=list(MODES), help='(all)')
    parser.add_argument('--forms', nargs='+', choices=FORMS, default=list(FORMS), help='(all)')
    parser.add_argument(
        '--dtypes', nargs='+', choices=DTYPES,
        help='(float32 bfloat16; with --short float32); eager is autocast, int8 is for optimized inference')
    parser.add_argument(
        '--batch-sizes', nargs='+', type=int, default=[BATCH_SIZE], metavar='N', help='(%(default)s)')


def groups(args: argparse.Namespace) -> List[Setting]:
    """Return the settings to measure."""
    dtypes = args.dtypes or (['float32'] if args.short else ['float32', 'bfloat16'])
    return [
        Setting(mode, form, dtype, batch_size) for mode in args.modes for form in args.forms for dtype in dtypes
        if dtype != 'int8' or (mode, form) == ('inference', 'optimized')
        for batch_size in args.batch_sizes]


def chosen(args: argparse.Namespace, setting: Setting) -> Sequence[str]:
    """Return the models of a setting; the reference is measured beside them."""
    default = INT8 if setting.dtype == 'int8' else (SHORT if args.short else DEFAULTS)[setting.mode, setting.form]
    names = args.models or default
    return tuple(dict.fromkeys(SIZES if EVERY in names else names))


def group_rows(
        networks: Sequence[Network], setting: Setting, suffix: str, device: str, measure: Callable[..., Any],
        bounds: Optional[Mapping[str, float]] = None,
) -> List[Dict[str, Any]]:
    """Measure the reference and the networks, interleaved."""
    everyone = {network.name: network for network in (describe(REFERENCE, setting.mode), *networks)}
    cases = {}
    for name, network in everyone.items():
        cases[name] = prepare(network, setting, device)
        gc.collect()  # the eager model is not needed after it was optimized
    seconds = measure(cases)

    def row(group: str, name: str, reference: Optional[str]) -> Dict[str, Any]:
        network, images_s = everyone[name], setting.batch_size / median(seconds[name])
        return make_row(group, name, seconds, reference, 'speed', (bounds or {}).get(name), **{
            'size': network.size, 'params (M)': network.params / 1e6, 'GMACs': network.macs / 1e9,
            'images/s': images_s})
    rows = [row(setting.title + suffix, name, None if name == REFERENCE else REFERENCE) for name in everyone]
    if OURS in everyone and THEIRS in everyone and setting.mode == 'inference':
        group = f'{setting.title}, {OURS} beside {THEIRS}'
        rows += [row(group, THEIRS, None), row(group, OURS, THEIRS)]
    return rows


def main() -> int:
    """Run the benchmark; return 1 if a bound is broken.

    Until it ends, finished groups are in a file with the suffix ``.part``.
    """
    args = parse_args('throughput', QUESTION, rounds=6, options=add_options)
    if args.device == 'cuda':
        # torch computes float32 convolutions in TF32 by default; so must linear layers
        torch.set_float32_matmul_precision('high')
        torch.backends.cudnn.benchmark = True
    # Networks of one class share the code that is compiled for training. By default torch takes the second network's
    # image size for a sign that sizes vary, compiles slower code, and does not compile the ninth network at all.
    torch._dynamo.config.automatic_dynamic_shapes = False
    torch._dynamo.config.cache_size_limit = torch._dynamo.config.accumulated_cache_size_limit
    unfinished = args.output.with_suffix('.part')
    rows: List[Dict[str, Any]] = []
    for setting in groups(args):
        names = chosen(args, setting)
        networks = [describe(name, setting.mode) for name in names if name != REFERENCE]
        for suffix, part in (split(networks) or ({'': []} if names else {})).items():
            measure = args.measure if not suffix else partial(
                args.measure, rounds=max(2, args.rounds // 2), warmup=1)
            rows += group_rows(part, setting, suffix, args.device, measure)
            print(f'{setting.title}{suffix}: measured', flush=True)
            write_results(unfinished, QUESTION, args.command, args.environment, rows)  # survives an interrupt
            forget_compiled()
    status = finish(args, QUESTION, rows)
    unfinished.unlink(missing_ok=True)
    return status


if __name__ == '__main__':
    sys.exit(main())
