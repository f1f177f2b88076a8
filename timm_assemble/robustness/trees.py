"""Tasks of folders: published trees of corruptions and perturbations, generated corruptions, test sets.

Trees are ``corruption/severity/class/*.JPEG``, as in ImageNet-C, and ``perturbation/class/*.mp4``, as in ImageNet-P.
"""
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple

from ..errors import UserError
from ..evaluation.image_files import FileList, class_folders, list_files, some
from .datasets.corruptions import Corruption, library_versions
from .datasets.protocols import Preprocessing
from .datasets.test_sets import OBJECTNET, LabelSpace, check_folders, known_test_set, objectnet_classes, synsets
from .metrics import ALEXNET_FLIP_RATE, SEVERITIES
from .tasks.measurements import ErrorTask, FlipTask

__all__ = ['generated_tasks', 'imagenet_c_tasks', 'imagenet_p_tasks', 'ood_tasks', 'test_set_tasks']


def generated_tasks(
        files: FileList, preprocessing: Preprocessing, corruptions: Sequence[str], seed: int,
) -> List[ErrorTask]:
    """Return one task for each corruption and severity, generated on the fly."""
    libraries = library_versions()
    return [ErrorTask.of_files(files, preprocessing, Corruption(name, severity, seed), libraries,
                               group='corruption', name=name, severity=severity)
            for name in corruptions for severity in SEVERITIES]


def imagenet_c_tasks(
        root: Path, preprocessing: Preprocessing, corruptions: Sequence[str],
) -> Tuple[List[ErrorTask], List[str]]:
    """Check a tree of images and return one task for each corruption and severity, and notes on its files.

    One ValueError names all folders that are missing, or all that differ in classes or number of images.
    """
    if not root.is_dir():
        raise UserError(f'imagenet_c must be a folder with one folder per corruption, got {root}')
    wanted = [(name, severity) for name in corruptions for severity in SEVERITIES]
    absent = [name for name in corruptions if not (root / name).is_dir()]
    missing = absent + [f'{name}/{severity}' for name, severity in wanted
                        if name not in absent and not (root / name / str(severity)).is_dir()]
    if missing:
        raise UserError(f'imagenet_c must have {len(corruptions)} corruptions with severities 1 to 5, {root} lacks '
                         f'{some(missing)}; `corruptions` names those to measure, without an mCE')
    tasks: List[ErrorTask] = []
    notes: List[str] = []
    unlike = []
    classes: Tuple[str, ...] = ()
    for name, severity in wanted:
        files = list_files(root / name / str(severity), parameter='imagenet_c')
        classes = classes or files.classes
        files = files._replace(classes=classes if files.classes == classes else files.classes)  # one tuple in memory
        tasks.append(ErrorTask.of_files(files, preprocessing, group='corruption', name=name, severity=severity))
        notes += files.notes
        if tasks[-1].items != tasks[0].items or files.classes != classes:
            unlike.append(f'{tasks[-1].title} has {tasks[-1].items} of {len(files.classes)}')
    if unlike:
        raise UserError(f'imagenet_c must have the same classes and number of images in all folders of {root}: '
                         f'{tasks[0].title} has {tasks[0].items} images of {len(classes)} classes, {some(unlike)}')
    more = len(notes) - 3
    return tasks, notes[:3] + ([f'{root}: so have {more} more of its folders'] if more > 0 else [])


def imagenet_p_tasks(root: Path, preprocessing: Preprocessing) -> List[FlipTask]:
    """Check a tree of videos and return one task for each perturbation.

    One ValueError names all folders that are missing, or their numbers of videos if these differ.
    """
    perturbations = [*ALEXNET_FLIP_RATE]
    missing = [name for name in perturbations if not (root / name).is_dir()]
    if missing:
        raise UserError(f'imagenet_p must be a folder with the {len(perturbations)} perturbations '
                         f'{", ".join(perturbations)}; {root} lacks {", ".join(missing)}')
    tasks = [FlipTask.of_files(list_files(root / name, FlipTask.extensions, 'imagenet_p'), preprocessing,
                               group='perturbation', name=name) for name in perturbations]
    if len({task.items for task in tasks}) > 1:
        raise UserError(f'imagenet_p must have the same number of videos in all perturbations of {root}: '
                         f'{", ".join(f"{task.name} has {task.items}" for task in tasks)}')
    return tasks


def _reference(
        name: str, clean: Optional[Path], classes: Sequence[str], preprocessing: Preprocessing,
) -> List[ErrorTask]:
    """Return the task of the clean images of a few classes, among which models predict; none without such images."""
    if clean is None or not {*classes} <= {*synsets()}:
        return []
    only = tuple(sorted({*classes} & {*class_folders(clean)}))
    if not only:
        return []
    files = list_files(clean, only=only)
    return [ErrorTask.of_files(files, preprocessing, group='reference', name=f'{name}-clean', only=only,
                               label_space=LabelSpace('synsets', tuple(sorted(classes))))]


def test_set_tasks(
        folders: Mapping[str, Path], clean: Optional[Path], preprocessing: Preprocessing,
) -> Tuple[List[ErrorTask], List[str]]:
    """Check test sets and return their tasks and notes; masked ones have the clean images of their classes beside."""
    tasks: List[ErrorTask] = []
    notes: List[str] = []
    for name, folder in folders.items():
        if not folder.is_dir():
            raise UserError(f'test_sets {name} must be a folder, got {folder}')
        space, only = known_test_set(name), None
        if space == OBJECTNET:
            classes = objectnet_classes(folder)
            folder = folder / 'images'
            only = tuple(sorted({*classes} & {*(class_folders(folder) if folder.is_dir() else ())}))
            space = space._replace(targets=tuple(classes[folder_name] for folder_name in only))
            if len(only) < len(classes):
                notes.append(f'{name}: {len(classes) - len(only)} of {len(classes)} classes have no folder: '
                             f'{some(sorted({*classes} - {*only}))}')
        else:
            notes += check_folders(name, folder, space)
        files = list_files(folder, parameter=f'test_sets {name}', only=only)
        notes += files.notes
        tasks.append(ErrorTask.of_files(files, preprocessing, group='test_set', name=name, only=only,
                                        label_space=space))
        if space.mask:
            tasks += _reference(name, clean, space.mask, preprocessing)
    return tasks, notes


def ood_tasks(
        folders: Mapping[str, Path], clean: Optional[Path], preprocessing: Preprocessing,
) -> Tuple[List[ErrorTask], List[str]]:
    """Return the tasks of images that are of none of the models' classes, and notes.

    ImageNet-O is measured among the classes of its folders, and beside the clean images of these.
    """
    if folders and clean is None:
        raise UserError('ood needs `clean` or `generate`: images of the models\' classes to tell the others from')
    tasks: List[ErrorTask] = []
    notes: List[str] = []
    for name, folder in folders.items():
        files = list_files(folder, parameter=f'ood {name}')
        mask = None
        if name == 'imagenet-o':
            mask = tuple(sorted(files.classes))
            reference = _reference(name, clean, mask, preprocessing)
            if not reference:
                raise UserError(f'clean must have the classes of ood {name}, folders named by synsets, got {clean}')
            tasks += reference
        notes += files.notes
        tasks.append(ErrorTask.of_files(files, preprocessing, group='ood', name=name,
                                        label_space=LabelSpace('none', mask)))
    return tasks, notes
