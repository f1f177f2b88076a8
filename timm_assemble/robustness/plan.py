"""Options, and from options and folders to tasks; everything is checked before any work.

Trees are ``corruption/severity/class/*.JPEG``, as in ImageNet-C, and ``perturbation/class/*.mp4``, as in ImageNet-P.
"""
import hashlib
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Dict, List, Mapping, Optional, Sequence, Tuple, Type

from msgspec import Struct

from ..data.images import FileList, list_images, printable, some
from ..data.preprocessing import size_text
from ..errors import UserError, check
from ..evaluation.options import Option, Options
from ..evaluation.results import Count, Natural, Text, file_names
from .corruptions import library_versions
from .metrics import ALEXNET_ERROR, ALEXNET_FLIP_RATE, SEVERITIES
from .protocols import PROTOCOLS, Protocol, Steps
from .tasks import (
    CleanTask, Corruption, CorruptionTask, FlipTask, ForeignTask, OtherSetTask, RobustnessTask, ShiftTask,
)
from .test_sets import NO_CLASS, REAL, TEST_SETS, LabelSpace, known_test_set, real_labels, synsets

__all__ = ['Adaptation', 'Plan', 'RobustnessOptions', 'make_plan']

IMAGES = 'images, one or more'
PRIOR = 16
RESERVED = ('clean', 'corruption', 'perturbation', 'imagenet')  # names of other images in results


@dataclass(kw_only=True)
class RobustnessOptions(Options):
    """What :func:`timm_assemble.robustness.evaluate` takes."""

    imagenet_c: Annotated[Optional[Path], Option(
        'Folder corruption/severity/class/*.JPEG, as published.', metavar='DIR', group=IMAGES)] = None
    imagenet_p: Annotated[Optional[Path], Option(
        'Folder perturbation/class/*.mp4, as published.', metavar='DIR', group=IMAGES)] = None
    generate: Annotated[Optional[Path], Option(
        'Folder class/* of clean images, whose corruptions are generated on the fly.',
        metavar='DIR', group=IMAGES)] = None
    clean: Annotated[Optional[Path], Option(
        'Folder class/* of the clean images of `imagenet_c`.', metavar='DIR', group=IMAGES)] = None
    test_sets: Annotated[Mapping[str, Path], Option(
        f'Name to folder of other images of the classes. {", ".join(TEST_SETS)} are measured as published, and {REAL} '
        f'is a JSON file, the labels of `clean`; any other name is a folder of the classes.',
        group=IMAGES)] = field(default_factory=dict)
    ood: Annotated[Mapping[str, Path], Option(
        'Name to folder any/* of images of none of the classes, to tell from the clean ones; imagenet-o is '
        'measured as published.', group=IMAGES)] = field(default_factory=dict)
    protocol: Annotated[Optional[str], Option(
        '15 corruptions at 224, 19 at 256, or the trees of this name for `imagenet_c`; imagenet-c if not given, '
        'with `generate` assemble.', choices=(*PROTOCOLS,))] = None
    baseline: Annotated[Optional[str], Option(
        'Label or name of the model that errors are relative to, one of the models or one more; AlexNet on '
        "ImageNet's classes, else none, if not given.", metavar='MODEL')] = None
    corruptions: Annotated[Optional[Sequence[str]], Option(
        'Measure only these; then there is no mCE.', metavar='NAME')] = None
    input_size: Annotated[Optional[Tuple[int, int]], Option(
        "Height and width of the models' input, or one number for both; the protocol's if not given.",
        metavar='N')] = None
    shift: Annotated[Optional[int], Option(
        'Measure shift consistency, of crops at most this many pixels apart.', metavar='N', minimum=1)] = None
    seed: Annotated[Optional[int], Option(
        'Of generated corruptions, crops and resamples; 0 if not given.', minimum=0)] = None
    keep_predictions: Annotated[bool, Option(
        'Write the predictions of every image, and compute intervals of every metric, comparisons of models, '
        'temperature scaling and accuracy by class.')] = False
    adapt: Annotated[Optional[str], Option(
        'Adapt the batch norms (bn) of models by name to each batch, which mixes classes and decides the results.',
        choices=('bn',))] = None
    prior: Annotated[Optional[int], Option(
        f'Images that the trained statistics count as in `adapt`, N of arXiv 2006.16971; {PRIOR} if not given.',
        metavar='N', minimum=0)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.test_sets, self.ood = ({name: Path(folder) for name, folder in (folders or {}).items()}
                                    for folders in (self.test_sets, self.ood))
        file_names(self.test_sets, 'test_sets', exact=True)
        file_names(self.ood, 'ood', exact=True)
        # a masked test set has clean images of its own beside it
        names = [*RESERVED, *(f'{name}-clean' for name in (*self.test_sets, *self.ood))]
        for parameter, sets in (('test_sets', self.test_sets), ('ood', {**self.ood, **dict.fromkeys(self.test_sets)})):
            wrong = [name for name in sets if name.casefold() in names]
            check(not wrong, parameter, ', '.join(wrong), f'named otherwise than {", ".join(RESERVED)} and NAME-clean')
        file_names([*self.test_sets, *self.ood], 'ood', exact=True)


class Adaptation(Struct, forbid_unknown_fields=True):
    """How batch norms are adapted to each batch, and how batches are made."""

    layers: Text
    prior: Natural
    batch_size: Count
    order: Text


@dataclass(frozen=True)
class Plan:
    """Tasks in the order of measuring, and what decides them."""

    options: RobustnessOptions
    protocol: Protocol
    corruptions: Tuple[str, ...]
    size: Tuple[int, int]  # of the model's input
    text: str  # the protocol in words
    tasks: List[Any]
    libraries: Dict[str, str]  # versions of what generates corruptions
    notes: List[str] = field(default_factory=list)  # on files and folders
    adaptation: Optional[Adaptation] = None

    @property
    def complete(self) -> bool:
        """Whether all corruptions of the protocol are measured."""
        return self.corruptions == self.protocol.corruptions

    def of(self, *kinds: Type[RobustnessTask]) -> List[Any]:
        return [task for task in self.tasks if isinstance(task, kinds)]

    @property
    def classes(self) -> Tuple[str, ...]:
        """Names of the class folders that have images, of what errors or flips are relative to a baseline."""
        tasks = self.of(CorruptionTask) or self.of(CleanTask) or self.of(FlipTask) or self.tasks
        lists = [{name.split('/')[-2] for name, _ in task.list_files().files}
                 for task in {task.names: task for task in tasks}.values()]
        return tuple(sorted(set.intersection(*lists)))

    @property
    def data(self) -> Dict[str, Any]:
        """Folder, counts and fingerprint of the files that are read, by where they are from."""
        parts: Dict[str, Dict[Path, RobustnessTask]] = {}
        for task in self.tasks:
            parts.setdefault(task.source, {}).setdefault(task.folder, task)
        roots = dict(clean=self.options.generate or self.options.clean, corruption=self.options.imagenet_c,
                     perturbation=self.options.imagenet_p)
        return {name: dict(
            folder=printable(roots.get(name) or next(iter(tasks.values())).folder),
            items=sum(task.items for task in tasks.values()), classes=len(next(iter(tasks.values())).classes),
            fingerprint=hashlib.sha256(' '.join(task.data for task in tasks.values()).encode()).hexdigest())
            for name, tasks in parts.items()}


def _protocol(o: RobustnessOptions) -> Protocol:
    """Return the protocol of options that go together."""
    if not (o.imagenet_c or o.generate or o.clean or o.test_sets or o.imagenet_p):
        raise UserError('imagenet_c must be given, or `imagenet_p`, `generate`, `clean` or `test_sets`')
    if o.generate and (o.imagenet_c or o.clean):
        raise UserError('generate corrupts clean images, and takes neither `imagenet_c` nor `clean`')
    if o.generate and o.imagenet_p and not o.protocol:
        raise UserError('generate has images of 256 and `imagenet_p` sequences of 224: set `protocol` to imagenet-c, '
                        'or measure them one after the other')
    protocol = PROTOCOLS[o.protocol or ('assemble' if o.generate else 'imagenet-c')]
    if protocol.name == 'assemble' and (o.imagenet_c or o.imagenet_p):
        raise UserError('protocol must be imagenet-c for published images, which are 224 x 224; assemble is for '
                        '`generate`')
    if protocol.folders and not o.imagenet_c:
        raise UserError(f'protocol {protocol.name} needs `imagenet_c`: its corruptions are read and not generated')
    if o.corruptions and not (o.imagenet_c or o.generate):
        raise UserError('corruptions need `imagenet_c` or `generate`')
    if o.shift and not (o.generate or o.clean):
        raise UserError('shift needs `clean` or `generate`')
    if o.adapt and (o.imagenet_p or o.shift):
        raise UserError('adapt is for independent images, and takes neither `imagenet_p` nor `shift`')
    if o.prior is not None and not o.adapt:
        raise UserError('prior needs `adapt`')
    if o.ood and not (o.clean or o.generate):
        raise UserError('ood needs `clean` or `generate`: images of the models\' classes to tell the others from')
    return protocol


def _published(root: Path, steps: Steps, corruptions: Sequence[str]) -> Tuple[List[CorruptionTask], List[str]]:
    """Check a tree of images and return one task for each corruption and severity, and notes on its files.

    One error names all folders that are missing, or all that differ in classes or number of images.
    """
    if not root.is_dir():
        raise UserError(f'imagenet_c must be a folder with one folder per corruption, got {printable(root)}')
    absent = [name for name in corruptions if not (root / name).is_dir()]
    wanted = [(name, severity) for name in corruptions for severity in SEVERITIES]
    missing = absent + [f'{name}/{severity}' for name, severity in wanted
                        if name not in absent and not (root / name / str(severity)).is_dir()]
    if missing:
        raise UserError(f'imagenet_c must have {len(corruptions)} corruptions with severities 1 to 5, '
                        f'{printable(root)} lacks {some(missing)}; `corruptions` names those to measure, without an '
                        f'mCE')
    tasks: List[CorruptionTask] = []
    notes: List[str] = []
    unlike = []
    classes: Tuple[str, ...] = ()
    for name, severity in wanted:
        files = list_images(root / name / str(severity), 'imagenet_c')
        classes = classes or files.classes
        files = files._replace(classes=classes if files.classes == classes else files.classes)  # one tuple in memory
        tasks.append(CorruptionTask.of_files(name, files, steps, parameter='imagenet_c', severity=severity))
        notes += files.notes
        if tasks[-1].items != tasks[0].items or files.classes != classes:
            unlike.append(f'{tasks[-1].title} has {tasks[-1].items} of {len(files.classes)}')
    if unlike:
        raise UserError(f'imagenet_c must have the same classes and number of images in all folders of '
                        f'{printable(root)}: {tasks[0].title} has {tasks[0].items} images of {len(classes)} classes, '
                        f'{some(unlike)}')
    more = len(notes) - 3
    return tasks, notes[:3] + ([f'{printable(root)}: so have {more} more of its folders'] if more > 0 else [])


def _sequences(root: Path, steps: Steps) -> List[FlipTask]:
    """Check a tree of videos and return one task for each perturbation."""
    missing = [name for name in ALEXNET_FLIP_RATE if not (root / name).is_dir()]
    if missing:
        raise UserError(f'imagenet_p must be a folder with the {len(ALEXNET_FLIP_RATE)} perturbations '
                        f'{", ".join(ALEXNET_FLIP_RATE)}; {printable(root)} lacks {", ".join(missing)}')
    tasks = [FlipTask.of_files(name, list_images(root / name, 'imagenet_p', extensions=FlipTask.extensions), steps,
                               parameter='imagenet_p') for name in ALEXNET_FLIP_RATE]
    if len({task.items for task in tasks}) > 1:
        raise UserError(f'imagenet_p must have the same number of videos in all perturbations of {printable(root)}: '
                        f'{", ".join(f"{task.name} has {task.items}" for task in tasks)}')
    return tasks


def _reference(name: str, clean: Optional[FileList], mask: Sequence[str], steps: Steps) -> List[OtherSetTask]:
    """Return the task of the clean images of a few classes, among which models predict; none without such images."""
    only = tuple(sorted({*mask} & {*(clean.classes if clean else ())}))
    if clean is None or not only or not {*mask} <= {*synsets()}:
        return []
    space = LabelSpace(tuple((name, (name,)) for name in only), tuple(sorted(mask)))
    return [OtherSetTask.of_files(f'{name}-clean', list_images(clean.folder, 'clean', only=only), steps, only=only,
                                  parameter='clean', label_space=space)]


def _other_sets(
        o: RobustnessOptions, clean: Optional[FileList], steps: Steps,
) -> Tuple[List[RobustnessTask], List[str]]:
    """Return the tasks of test sets and of images of no class, and notes.

    Masked ones have the clean images of their classes beside them; ImageNet-O is measured among the classes of its
    folders.
    """
    tasks: List[RobustnessTask] = []
    notes: List[str] = []
    for name, root in o.test_sets.items():
        parameter = f'test_sets {name}'
        if name == REAL:
            if clean is None:
                raise UserError(f'test_sets {REAL} needs `clean`, the images of its labels')
            files, space = real_labels(root, clean)
            tasks.append(OtherSetTask.of_files(name, files, steps, parameter=parameter, label_space=space, labels=root))
            continue
        check(root.is_dir(), parameter, printable(root), 'a folder')
        known = known_test_set(name, root)
        files = list_images(known.folder, parameter, only=known.expected if known.ignores else None)
        notes += [*known.check_folders(name, files.classes), *files.notes]
        tasks.append(OtherSetTask.of_files(name, files, steps, parameter=parameter, label_space=known.space,
                                          only=files.classes if known.ignores else None))
        if known.space.mask:
            tasks += _reference(name, clean, known.space.mask, steps)
    for name, folder in o.ood.items():
        files, space = list_images(folder, f'ood {name}'), NO_CLASS
        if name == 'imagenet-o':
            space = space._replace(mask=tuple(sorted(files.classes)))
            reference = _reference(name, clean, files.classes, steps)
            if not reference:
                raise UserError(f'clean must have the classes of ood {name}, folders named by synsets, got '
                                f'{printable(clean.folder) if clean else "none"}')
            tasks += reference
        notes += files.notes
        tasks.append(ForeignTask.of_files(name, files, steps, parameter=f'ood {name}', label_space=space))
    return tasks, notes


def make_plan(o: RobustnessOptions) -> Plan:
    """Check options and folders and return the tasks."""
    protocol = _protocol(o)
    known = protocol.corruptions if protocol.folders else tuple(ALEXNET_ERROR)
    unknown = [name for name in o.corruptions or () if name not in known]
    check(not unknown, 'corruptions', ', '.join(unknown), f'from {", ".join(known)}')
    corruptions = tuple(name for name in known if name in (o.corruptions or protocol.corruptions))
    size, seed = o.input_size or (protocol.crop, protocol.crop), o.seed or 0
    if o.shift and o.shift >= min(size):
        raise UserError(f"shift must be below the input's sides, {size_text(size)}, got {o.shift}")
    steps = Steps(protocol.resize, protocol.crop, size)
    published = steps._replace(resize=0)
    tasks: List[RobustnessTask] = []
    texts: List[str] = []
    notes: List[str] = []
    clean, files = o.generate or o.clean, None
    parameter = 'generate' if o.generate else 'clean'
    if clean:
        files = list_images(clean, parameter)
        notes += files.notes
        tasks.append(CleanTask.of_files('clean', files, steps, parameter=parameter, calibrated=o.keep_predictions))
        texts.append(f'clean images: {steps.describe()}')
    if o.generate and files:
        libraries = library_versions()
        tasks += [CorruptionTask.of_files(name, files, steps, Corruption(name, severity, seed), libraries,
                                          parameter=parameter, severity=severity)
                  for name in corruptions for severity in SEVERITIES]
        texts.append(f'{len(corruptions)} corruptions generated on the fly by imagecorruptions-imaug '
                     f'{metadata.version("imagecorruptions-imaug")} (seed {seed}, not compressed): '
                     f'{steps.describe(generated=True)}')
    if o.imagenet_c:
        found, more = _published(o.imagenet_c, published, corruptions)
        if files and found[0].classes != files.classes:
            raise UserError(f'clean must have the classes of `imagenet_c`, {printable(files.folder)} has others')
        tasks += found
        notes += more
        texts.append(f'{len(corruptions)} corruptions, images as published: {published.describe()}')
    if o.imagenet_p:
        tasks += _sequences(o.imagenet_p, published)
        texts.append(f'sequences as published: {published.describe()}, noise against the first frame, others against '
                     'the frame before')
    if o.shift and files:
        tasks.append(ShiftTask.of_files('clean', files, steps, o.shift, seed, parameter=parameter))
        texts.append(f'shift: two random crops of {size_text(size)} at most {o.shift} pixels apart (seed {seed}), '
                     'of images resized in proportion and padded by reflection where they are too small')
    if o.test_sets or o.ood:
        others, more = _other_sets(o, files, steps)
        tasks += others
        notes += more
        texts.append(f'test sets {", ".join([*o.test_sets, *o.ood])}: {steps.describe()}')
    adaptation = None
    if o.adapt:
        tasks = [replace(task, shuffle=seed) for task in tasks]  # type: ignore[call-arg]
        prior = PRIOR if o.prior is None else o.prior
        adaptation = Adaptation(o.adapt, prior, o.batch_size, f'shuffled by seed {seed}')
        texts.append(f'batch norms adapted to each batch of {o.batch_size}, prior {prior}, images '
                     f'{adaptation.order}')
    return Plan(o, protocol, corruptions, size, '; '.join(texts), tasks, library_versions() if o.generate else {},
                [*dict.fromkeys(notes)], adaptation)
