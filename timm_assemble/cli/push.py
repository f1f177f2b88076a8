"""``timm-assemble push``."""
import argparse

from .arguments import path

HELP = 'publish a model on the Hugging Face Hub'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Publish a folder in Hugging Face format, or a checkpoint of timm's train.py, of which such a folder is made "
        'first, with the EMA weights if there are any. A folder is not changed; its card is sent with REPO as source.')
    parser.add_argument('path', type=path, metavar='FOLDER_OR_CHECKPOINT',
                        help="folder with config.json and model.safetensors, or train.py's model_best.pth.tar")
    parser.add_argument('repo', metavar='REPO', help='user/name on the Hub, made if it does not exist')
    parser.add_argument('--output', type=path, metavar='DIR',
                        help='write what is made from a checkpoint, or the changed card of a folder, here: a new or '
                             'empty folder (default: ~/.cache/timm_assemble/push/REPO; a card is not written)')
    parser.add_argument('--private', action='store_true', help='make the repository private')
    parser.add_argument('--revision', metavar='BRANCH', help='branch, made if it does not exist (default: main)')
    parser.add_argument('--dry-run', action='store_true', help='print what would be sent; send nothing')


def run(args: argparse.Namespace) -> None:
    from ..hub.prepare import prepare
    from ..hub.push import push

    publication = prepare(args.path, args.repo, args.revision, args.output)
    print(publication.describe(), flush=True)
    if args.dry_run:
        print('dry run: nothing was sent; the same command without --dry-run sends it')
        return
    print(f'published: {push(publication, args.private)}\n'
          f"load it with: import timm, timm_assemble; timm.create_model('{publication.source}', pretrained=True)")
