"""``timm-assemble push``."""
import argparse
from pathlib import Path

HELP = 'publish a model on the Hugging Face Hub'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A folder in the Hub's form is sent as it is, its card made to name REPO. Of a checkpoint of timm's train.py "
        'such a folder is made first, beside it and named as the repository, of the EMA weights if there are.')
    parser.add_argument('path', type=Path, metavar='FOLDER_OR_CHECKPOINT',
                        help="folder with config.json and model.safetensors, or train.py's model_best.pth.tar")
    parser.add_argument('repo', metavar='REPO', help='user/name on the Hub, made if it is missing')
    parser.add_argument('--private', action='store_true', help='make the repository private')
    parser.add_argument('--revision', metavar='BRANCH', help='branch to send to, made if it is missing (default: main)')
    parser.add_argument('--dry-run', action='store_true', help='write the folder and print what would go; send nothing')


def run(args: argparse.Namespace) -> None:
    from ..hub import push as hub

    publication = hub.prepare(args.path, args.repo, args.revision)
    print(publication.describe(), flush=True)
    if args.dry_run:
        print('dry run: nothing was sent; the same command without --dry-run sends it')
        return
    print(f'published: {hub.push(publication, args.private)}\n'
          f"load it with: import timm, timm_assemble; timm.create_model('{publication.source}', pretrained=True)")
