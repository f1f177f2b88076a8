"""``timm-assemble robustness``."""
import argparse

from ..errors import UserError
from .arguments import MODEL_HELP, add_options, path, run_evaluation

HELP = 'mCE, mFR, calibration and shift consistency of any models of timm'
PARAMETERS = {'model': 'MODEL'}  # what loading calls one of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..robustness.plan import RobustnessOptions

    parser.description = (
        'Measure models on corrupted images, perturbation sequences and shifted crops, by a named protocol; write '
        'results.json, results.csv and robustness.png. Finished tasks are cached: the same command continues where it '
        'stopped.')
    parser.add_argument('models', nargs='*', metavar='MODEL', help=MODEL_HELP)
    parser.add_argument('--table', type=path, nargs='+', metavar='RESULTS',
                        help='alone: print the results.json of finished runs of one protocol side by side, with '
                             'comparisons where predictions were kept, and measure nothing')
    add_options(parser, RobustnessOptions, output='robustness-output')
    parser.set_defaults(defaults={action.dest: action.default for action in parser._actions})


def run(args: argparse.Namespace) -> None:
    from ..robustness import evaluate, make_table

    table, defaults = vars(args).pop('table'), vars(args).pop('defaults')
    if table:
        given = [f'`{name}`' for name, value in vars(args).items() if value not in ([], defaults.get(name, value))]
        if given:
            raise UserError(f'table must be given alone, got {", ".join(given)} too')
        print(make_table(table))
        return
    run_evaluation(evaluate, args, ', and are left out of every condition')
