"""``timm-assemble retrieval``."""
import argparse
import os
import shlex
import sys
from pathlib import Path

from ..errors import UserError
from .arguments import MODEL_HELP, non_negative, positive

HELP = 'recall@k and MAP@R of the embeddings of any models of timm'
PARAMETERS = {'model': 'MODEL'}  # what loading calls one of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        'Search every image among all others by the cosine similarity of embeddings; write results.json, results.csv '
        'and a figure of queries with their neighbours. Embeddings are cached: the same command continues where it '
        'stopped.')
    add = parser.add_argument
    add('models', nargs='+', metavar='MODEL', help=MODEL_HELP)
    add('--data-dir', type=Path, required=True, metavar='DIR',
        help='images, one folder per class; with --dataset the root of its published files')
    add('--dataset', choices=('cub', 'cars196', 'sop'),
        help='CUB-200-2011, Cars196 or Stanford Online Products: search the test classes of the published split')
    add('--download', action='store_true', help='download --dataset if --data-dir is new or empty')
    add('--head', choices=('model', 'embedding', 'avg', 'gem', 'flat'), default='model',
        help="what the classifier gets; the layer between pooling and classifier, of this package's models before its "
             "ReLU; or the last feature map averaged, pooled by GeM, or flattened (default: model)")
    add('--last-stride', type=int, choices=(1, 2), help="stride of stage 4 of this package's models (default: own)")
    add('--recall-at', type=positive, nargs='+', metavar='K',
        help='numbers of neighbours (default: 1 2 4 8; 1 10 100 1000 for sop)')
    add('--input-size', type=positive, metavar='N', help="side of the models' input in pixels (default: own)")
    add('--crop-pct', type=float, metavar='F', help='fraction of the short side that is cropped (default: own)')
    add('--queries', type=non_negative, default=8, metavar='N', help='queries in the figure of each model (default: 8)')
    add('--output', type=Path, default=Path('retrieval-output'), metavar='DIR',
        help='folder for results and the cache (default: retrieval-output)')
    add('--cache', type=Path, metavar='DIR',
        help='folder of embeddings, which several outputs may share (default: cache in --output)')
    add('--batch-size', type=positive, default=64, metavar='N', help='images per batch (default: 64)')
    workers = min(4, os.cpu_count() or 1)
    add('--workers', type=non_negative, default=workers, metavar='N',
        help=f'processes that read images; they change no metric (default here: {workers})')
    add('--device', help='where models run and images are searched (default: cuda if there is one, else cpu)')
    add('--amp', action='store_true', help='mixed precision: float16 on CUDA, else bfloat16')


def run(args: argparse.Namespace) -> None:
    from ..evaluation.image_files import unreadable_line
    from ..retrieval import evaluate
    from ..runtime.ranks import Ranks

    options = {key: value for key, value in vars(args).items() if key not in ('command', 'options', 'passed')}
    results = evaluate(**options, progress=True, command=shlex.join(['timm-assemble', *sys.argv[1:]]))
    if Ranks().rank == 0:
        print(f'{results.tables()}\n\nwritten: {args.output}: {", ".join(sorted(os.listdir(args.output)))}')
    if results.unreadable:
        raise UserError(f'{unreadable_line(results.unreadable, ", and are left out")}; the results are of the others')
