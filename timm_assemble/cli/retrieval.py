"""``timm-assemble retrieval``."""
import argparse

from .arguments import MODEL_HELP, add_options, path, run_evaluation

HELP = 'recall@k, mAP and MAP@R of the embeddings of any models of timm'
PARAMETERS = {'model': 'MODEL'}  # what loading calls one of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..retrieval.evaluation import RetrievalOptions

    parser.description = (
        'Search every image among all others, or queries in a gallery, by the cosine similarity of embeddings; '
        'write results.json, results.csv and a figure of queries with their neighbours. Embeddings are cached: the '
        'same command continues where it stopped.')
    parser.add_argument('models', nargs='+', metavar='MODEL', help=MODEL_HELP)
    parser.add_argument('--data-dir', type=path, metavar='DIR',
                        help='images, one folder per class; with --dataset or --split the root of the files that these '
                             'name')
    add_options(parser, RetrievalOptions, output='retrieval-output')


def run(args: argparse.Namespace) -> None:
    from ..retrieval import evaluate

    run_evaluation(evaluate, args, ', and are left out')
