"""``timm-assemble robustness``."""
import argparse

from .arguments import MODEL_HELP, add_options, run_evaluation

HELP = 'mCE, mFR, calibration and shift consistency of any models of timm'
PARAMETERS = {'model': 'MODEL'}  # what loading calls one of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..robustness.plan import RobustnessOptions

    parser.description = (
        'Measure models on corrupted images, perturbation sequences and shifted crops, by a named protocol; write '
        'results.json, results.csv and robustness.png. Finished tasks are cached: the same command continues where it '
        'stopped.')
    parser.add_argument('models', nargs='+', metavar='MODEL', help=MODEL_HELP)
    add_options(parser, RobustnessOptions, output='robustness-output')


def run(args: argparse.Namespace) -> None:
    from ..robustness import evaluate

    run_evaluation(evaluate, args, ', and are left out of every condition')
