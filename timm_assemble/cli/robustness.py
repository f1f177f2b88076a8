"""``timm-assemble robustness``."""
import argparse

from ..errors import check
from .arguments import MODEL_HELP, add_options, run_evaluation

HELP = 'mCE, mFR, calibration and shift consistency of any models of timm'
PARAMETERS = {'model': 'MODEL'}  # what loading calls one of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..robustness.plan import RobustnessOptions

    parser.description = (
        'Measure models on corrupted images, perturbation sequences and shifted crops, by a named protocol; write '
        'results.json, results.csv and robustness.png. Finished tasks are cached: the same command continues where it '
        'stopped.')
    parser.add_argument('models', nargs='*', metavar='MODEL', help=MODEL_HELP)
    parser.add_argument('--table', nargs='+', metavar='RESULTS', help='print the results.json of finished runs of one '
                        'protocol side by side, with comparisons where predictions were kept, and measure nothing')
    add_options(parser, RobustnessOptions, output='robustness-output')


def run(args: argparse.Namespace) -> None:
    from ..robustness import evaluate, make_table

    table = vars(args).pop('table')
    if table:
        check(not args.models, 'table', args.models, 'given without models')
        print(make_table(table))
        return
    run_evaluation(evaluate, args, ', and are left out of every condition')
