"""The library's entry: measure models and return the results."""
import hashlib
import json
import sys
import tempfile
import warnings
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Dict, Mapping, Optional, Sequence, Union

import torch
from timm.data import ImageNetInfo

from ..errors import UserError
from ..evaluation.image_files import Unreadable, unreadable_line
from ..evaluation.models import Model, check_identities, label_models
from ..evaluation.requirements import check_packages, find_device
from ..evaluation.results import check_output
from ..runtime.ranks import Ranks
from .models import load_classifier
from .plan import Plan, Request, make_plan
from .progress import Progress, image_bar
from .results.report import Results
from .results.statistics import add_statistics
from .results.summary import assemble, baseline_of
from .runner import Loading, check_files, run_tasks
from .statistics.detection import with_detection
from .tasks.cache import TaskCache
from .tasks.exclusion import leave_out
from .tasks.task import Classifier

__all__ = ['evaluate']

PathLike = Union[str, Path]


def _versions(plan: Plan) -> Dict[str, str]:
    from .. import __version__

    packages = ['timm', 'torch', 'torchmetrics', 'pillow', *(['av'] if plan.of_group('perturbation') else []),
                *(['scikit-learn'] if plan.request.ood else []), *(['scipy'] if plan.request.keep_predictions else [])]
    return {'timm_assemble': __version__, 'python': sys.version.split()[0],
            **{name: metadata.version(name) for name in packages}, **plan.libraries}


def _raise_on_unreadable(files: Sequence[Unreadable]) -> None:
    named = [dict(path=file.path, reason=file.reason) for file in dict.fromkeys(files)]
    if named:
        raise UserError(unreadable_line(named))


def _measurement(plan: Plan, models: Sequence[Classifier], baseline: Optional[str], cache: TaskCache) -> str:
    """Return a fingerprint of all that decides the results."""
    digest = hashlib.sha256(json.dumps(baseline).encode())
    for model in models:
        for task in plan.tasks:
            digest.update(json.dumps([model.label, cache.identity(task, model)], sort_keys=True).encode())
    return digest.hexdigest()


def evaluate(
        models: Union[Model, Sequence[Model], Mapping[str, Model]],
        *,
        imagenet_c: Optional[PathLike] = None,
        imagenet_p: Optional[PathLike] = None,
        generate: Optional[PathLike] = None,
        clean: Optional[PathLike] = None,
        test_sets: Optional[Mapping[str, PathLike]] = None,
        ood: Optional[Mapping[str, PathLike]] = None,
        protocol: Optional[str] = None,
        baseline: Optional[str] = None,
        corruptions: Optional[Sequence[str]] = None,
        input_size: Optional[int] = None,
        shift: Optional[int] = None,
        seed: Optional[int] = None,
        keep_predictions: bool = False,
        strict: bool = False,
        output: Optional[PathLike] = None,
        cache: Optional[PathLike] = None,
        identities: Optional[Mapping[str, str]] = None,
        batch_size: int = 64,
        workers: int = 0,
        device: Union[str, torch.device, None] = None,
        amp: bool = False,
        progress: bool = False,
        command: str = 'timm_assemble.robustness.evaluate',
) -> Results:
    """Measure models on corrupted images, perturbation sequences and shifted crops.

    Under torchrun the ranks share the work and all return the results; on several machines ``output`` must be a shared
    folder.

    Args:
        models: One or several, or a mapping from labels. A model is a name that timm has weights for,
            ``hf-hub:USER/NAME``, ``local-dir:FOLDER``, ``NAME=CHECKPOINT``, or a callable from (N, 3, S, S) uint8 RGB
            images on the device to (N, classes) logits, which normalizes them itself.
        imagenet_c: Folder ``corruption/severity/class/*.JPEG``.
        imagenet_p: Folder ``perturbation/class/*.mp4``.
        generate: Folder ``class/*`` of clean images, whose corruptions are generated on the fly.
        clean: Folder ``class/*`` of the clean images of ``imagenet_c``.
        test_sets: Name to folder of other images of the models' classes. ``imagenet-a``, ``imagenet-r``,
            ``imagenet-sketch``, ``objectnet`` and names that begin with ``imagenetv2`` are measured as published.
        ood: Name to folder ``any/*`` of images of none of the models' classes, which are told from the clean ones;
            ``imagenet-o`` is measured as published.
        protocol: ``'imagenet-c'``, 15 corruptions at 224, ``'assemble'``, 19 at 256, the default with ``generate``, or
            ``'imagenet-c-bar'`` and ``'imagenet-3dcc'``, whose trees ``imagenet_c`` is.
        baseline: Label or name of the model that errors are relative to, one of ``models`` or one more. The default is
            AlexNet on ImageNet's classes, else none.
        corruptions: Measure only these; then there is no mCE.
        input_size: Side in pixels of the models' input; the protocol's if None.
        shift: Measure shift consistency, of crops at most this many pixels apart.
        seed: Of generated corruptions and crops; 0 if None.
        keep_predictions: Write the predictions of every image, and compute statistics of them: intervals of every
            metric, comparisons of models, temperature scaling, accuracy by class.
        strict: Read every file before any work, and raise a ValueError if one cannot be read. Otherwise such a file is
            left out of every condition alike, and the results name it.
        output: Folder for the results and the cache. The same call continues where it stopped; results of another
            measurement are never overwritten. Without it nothing is written, and nothing is cached.
        cache: Folder of the cache, which several outputs may share; ``cache`` in ``output`` if None.
        identities: Label of a callable to a text that says which weights it has: a checkpoint's checksum, for example.
            ``output`` requires it, because a cached result is reused for the same identity.
        batch_size: Images per batch.
        workers: Processes that read and corrupt images; they change no metric.
        device: Where the models run; CUDA if there is one, else the CPU, if None.
        amp: Mixed precision for models by name: float16 on CUDA, else bfloat16.
        progress: Show a progress bar.
        command: What results.json says was called.

    Raises:
        UserError: An argument is wrong, a folder or model does not fit, or a package of the extra ``robustness`` is
            missing.
    """
    for name, value, least in (
            ('input_size', input_size, 1), ('shift', shift, 1), ('batch_size', batch_size, 1), ('workers', workers, 0)):
        if value is not None and value < least:
            raise UserError(f'{name} must be {least} or more, got {value}')
    check_packages('robustness', 'torchmetrics', *(['imagecorruptions'] if generate else []),
                   *(['av'] if imagenet_p else []), *(['sklearn'] if ood else []),
                   *(['scipy'] if keep_predictions else []), *(['matplotlib', 'jsonschema'] if output else []))
    if seed is not None and not (generate or shift):
        warnings.warn('seed has no effect: without `generate` and `shift` nothing is random', stacklevel=2)
    if baseline and not (imagenet_c or imagenet_p or generate):
        warnings.warn('baseline has no effect but being measured too: without `imagenet_c`, `imagenet_p` and '
                      '`generate` nothing is relative to it', stacklevel=2)
    if cache and not output:
        raise UserError('cache needs `output`: without it nothing is cached')
    imagenet_c, imagenet_p, generate, clean = (
        None if folder is None else Path(folder) for folder in (imagenet_c, imagenet_p, generate, clean))
    sets, others = ({name: Path(folder) for name, folder in (folders or {}).items()} for folders in (test_sets, ood))
    plan = make_plan(Request(imagenet_c, imagenet_p, generate, clean, protocol, corruptions, input_size, shift,
                             seed or 0, sets, others, keep_predictions))
    labelled, baseline = label_models(models, baseline)
    identities = identities or {}
    check_identities(labelled, identities, output is not None)
    device = find_device(device)
    classifiers = [load_classifier(label, model, plan, device, amp, identities.get(label))
                   for label, model in labelled.items()]
    precision = 'float32' if not amp else 'float16' if device.type == 'cuda' else 'bfloat16'
    loading = Loading(batch_size, workers, device)
    with ExitStack() as stack:
        ranks = stack.enter_context(Ranks())
        folder = Path(output or ranks.from_first(lambda: stack.enter_context(tempfile.TemporaryDirectory())))
        store = TaskCache(Path(cache or folder / 'cache'), precision, _versions(plan))
        measurement = _measurement(plan, classifiers, baseline, store)
        ranks.from_first(lambda: check_output(folder, measurement))
        if strict:
            _raise_on_unreadable(check_files(plan.tasks, loading, ranks))
        bar = stack.enter_context(image_bar(disable=not progress or ranks.rank > 0))
        run_tasks(plan.tasks, classifiers, store, loading, ranks, Progress(workers, bar))
        ranks.barrier()
        measured, unreadable = leave_out([(model, store.collect(plan.tasks, model)) for model in classifiers])
        measured = [(model, [*with_detection(results)]) for model, results in measured]
        ranks.barrier()  # before the temporary folder goes

    # sequences need no classes, but flips of models with other classes do not compare with AlexNet's
    imagenet = set(plan.classes) == set(ImageNetInfo('imagenet-1k').label_names()) and all(
        model.details['num_classes'] in (1000, 1001) for model in classifiers)
    relative_to = baseline_of(baseline, imagenet, measured)
    values = assemble(
        plan, measured, relative_to, precision, store.versions,
        dict(date=datetime.now(timezone.utc).isoformat(timespec='seconds'), command=command, device=str(device),
             batch_size=batch_size, workers=workers, world_size=ranks.world_size))
    values.update(measurement=measurement, unreadable=unreadable)
    other_versions = {f'{name} {version}' for _, cached in measured for result in cached
                      for name, version in result.versions.items() if store.versions.get(name, version) != version}
    if other_versions:
        values['notes'].append(f'some results were cached earlier, with {", ".join(sorted(other_versions))}')
    if unreadable:
        values['notes'].append(f'{unreadable_line(unreadable)}; they are left out of every condition alike')
    if keep_predictions:
        add_statistics(values, measured, relative_to, baseline, plan.complete, seed or 0)
    results = Results(values, measured if keep_predictions else ())
    if output is not None and ranks.rank == 0:
        results.write(folder)
    return results
