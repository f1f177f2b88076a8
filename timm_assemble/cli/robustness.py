"""``timm-assemble robustness``."""
import argparse
import os
import shlex
import sys
import warnings
from datetime import datetime, timezone
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Dict, List, Optional

from .arguments import positive

HELP = 'mCE, mFR, calibration and shift consistency of any models of timm'


def _not_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'must be a whole number from 0, got {text!r}')
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        'Measure models on corrupted pictures, on films of perturbed ones and on shifted crops, by a named protocol; '
        'write results.json, results.csv and robustness.png. What is done is kept: the same command goes on where it '
        'ended.')
    add = parser.add_argument
    add('models', nargs='+', metavar='MODEL',
        help='name that timm has weights for, hf-hub:USER/NAME, local-dir:FOLDER (LABEL=hf-hub:... gives a label), or '
             'NAME=CHECKPOINT')
    data = parser.add_argument_group('pictures, one or more')
    data.add_argument('--imagenet-c', type=Path, metavar='DIR', help='corruption/severity/class/*.JPEG, as published')
    data.add_argument('--imagenet-p', type=Path, metavar='DIR', help='perturbation/class/*.mp4, as published')
    data.add_argument('--generate', type=Path, metavar='DIR',
                      help='class/*: clean pictures, of which corrupted ones are made as they are needed')
    data.add_argument('--clean', type=Path, metavar='DIR', help='class/*: the clean pictures of --imagenet-c')
    add('--protocol', choices=('imagenet-c', 'assemble'),
        help='15 corruptions at 224, or 19 at 256 (default: imagenet-c; with --generate assemble)')
    add('--baseline', metavar='MODEL',
        help='the one of the models, or one more, that errors are relative to (default: AlexNet on ImageNet, else '
             'none)')
    add('--corruptions', nargs='+', metavar='NAME', help='only these, and then no mCE is claimed')
    add('--input-size', type=positive, metavar='N', help="side in pixels that the models get (default: the protocol's)")
    add('--shift', type=positive, metavar='N', help='measure shift consistency, of crops at most N pixels apart')
    add('--seed', type=int, help='of corruptions and crops that are made (default: 0)')
    add('--output', type=Path, default=Path('robustness-output'), metavar='DIR',
        help='folder for results and finished cells (default: robustness-output)')
    add('--batch-size', type=positive, default=64, metavar='N', help='pictures at a time (default: 64)')
    workers = min(4, os.cpu_count() or 1)
    add('--workers', type=_not_negative, default=workers, metavar='N',
        help=f'processes that read and corrupt pictures, none of which changes a figure (default here: {workers})')
    add('--device', help='where the models run (default: cuda if there is one, else cpu)')
    add('--amp', action='store_true', help='mixed precision: float16 on CUDA, else bfloat16')


def _need(*modules: str) -> None:
    for module in modules:
        try:
            import_module(module)
        except ModuleNotFoundError as e:
            raise ValueError(f"robustness needs {e.name}: pip install 'timm-assemble[robustness]'") from e
        except ImportError as e:  # OpenCV without a system's graphics library, say
            raise ValueError(f'robustness cannot import {module}: {" ".join(str(e).split())}') from e


def _warn_of_no_effect(args: argparse.Namespace) -> None:
    if args.seed is not None and not (args.generate or args.shift):
        warnings.warn('--seed has no effect: without --generate and --shift nothing is drawn', stacklevel=2)
    if args.baseline and not (args.imagenet_c or args.imagenet_p or args.generate):
        warnings.warn('--baseline has no effect but for being measured too: without --imagenet-c, --imagenet-p and '
                      '--generate nothing is relative to it', stacklevel=2)


def _device(name: Optional[str]) -> Any:
    import torch

    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        if device.type == 'cuda' and device.index is None:
            device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise ValueError(
            f'--device must be one that torch has here, got {name!r}: {str(e).splitlines()[0]}') from e
    return device


def _subject(model: Any, plan: Any, device: Any, amp: bool) -> Any:
    """A model with its class of each folder of the pictures."""
    from ..robustness.tasks.cache import Subject
    from ..utils.accuracy import read_class_map

    class_map: Optional[List[int]] = None
    if plan.labelled is not None:
        found = read_class_map(plan.labelled, model.num_classes, f'pictures for {model.label}')
        class_map = [found[name] for name in plan.classes]
        class_map = None if class_map == [*range(model.num_classes)] else class_map
    return Subject(
        model.label, dict(model.identity, size=plan.size), model.classifier(device, amp, plan.size), class_map)


def _versions(plan: Any) -> Dict[str, str]:
    from .. import __version__

    packages = ['timm', 'torch', 'torchmetrics', 'pillow', *(['av'] if 'perturbation' in plan.data else [])]
    versions = dict(timm_assemble=__version__, python=sys.version.split()[0])
    return {**versions, **{name: metadata.version(name) for name in packages}, **plan.libraries}


def run(args: argparse.Namespace) -> None:
    _need('torchmetrics', 'matplotlib', 'tqdm', 'jsonschema', *(['imagecorruptions'] if args.generate else []),
          *(['av'] if args.imagenet_p else []))

    from timm.data import ImageNetInfo
    from tqdm import tqdm

    from ..robustness.models import labels_of, load_model
    from ..robustness.plan import Request, make_plan
    from ..robustness.results import plots as drawing, schema, summary as results, tables as report
    from ..robustness.runner import Job, Loading, run_cells
    from ..robustness.tasks.cache import CellStore

    _warn_of_no_effect(args)
    args.seed = args.seed or 0
    plan = make_plan(Request(**{key: getattr(args, key) for key in Request._fields}))
    texts = [*args.models]
    if args.baseline and args.baseline not in (*texts, *labels_of(texts)):
        texts.insert(0, args.baseline)
    labels = labels_of(texts)
    baseline = args.baseline and (
        args.baseline if args.baseline in labels else labels[texts.index(args.baseline)])
    device = _device(args.device)
    loaded = [load_model(text, label) for text, label in zip(texts, labels)]
    subjects = [_subject(model, plan, device, args.amp) for model in loaded]
    store = CellStore(args.output / 'cells', _versions(plan))
    precision = 'float32' if not args.amp else 'float16' if device.type == 'cuda' else 'bfloat16'
    job = Job.from_environment()
    with tqdm(total=len(plan.cells[job.rank::job.world]) * len(subjects), unit='cell', disable=job.rank > 0,
              dynamic_ncols=True) as progress:
        failures = run_cells(
            plan.cells, subjects, store, Loading(args.batch_size, args.workers, device), precision, job, progress)
    if job.rank:
        return
    if failures:
        files = list(dict.fromkeys(file for failure in failures for file in failure.files))
        raise ValueError(
            f'{len(files)} of the files cannot be read, and their folders were left out: '
            f'{", ".join(f"{file.path} ({file.reason})" for file in files[:3])}{", ..." if len(files) > 3 else ""}; '
            f'what is finished is kept in {args.output}')

    # films need no classes, and a model of others has flips of another kind than AlexNet's
    imagenet = set(plan.classes) == set(ImageNetInfo('imagenet-1k').label_names()) and all(
        model.num_classes in (1000, 1001) for model in loaded)
    figures = results.assemble(
        plan, [results.MeasuredModel(model, store.collect(plan.cells, subject, precision))
               for model, subject in zip(loaded, subjects)],
        baseline, imagenet, precision, store.versions,
        dict(date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
             command=shlex.join(['timm-assemble', *sys.argv[1:]]), device=str(device), batch_size=args.batch_size,
             workers=args.workers, processes=job.world))
    others = {version for subject in subjects for version in store.other_versions(plan.cells, subject, precision)}
    if others:
        figures['notes'].append(f'some cells were kept from before, of {", ".join(sorted(others))}')
    schema.write_results(args.output / 'results.json', figures)
    schema.write_whole(args.output / 'results.csv', report.csv_text(figures))
    drawn = drawing.draw(args.output / 'robustness.png', figures)
    print(f'{report.tables(figures)}\n\nwritten: {args.output / "results.json"}, results.csv'
          f'{", robustness.png" if drawn else ""}')
