"""From folders and options to tasks; all folders are checked before any work."""
import hashlib
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..errors import UserError
from ..evaluation.image_files import class_folders, list_files
from .datasets.corruptions import library_versions
from .datasets.protocols import PROTOCOLS, Preprocessing, Protocol
from .metrics import ALEXNET_ERROR
from .tasks.measurements import ErrorTask, ShiftTask
from .tasks.task import Task
from .trees import generated_tasks, imagenet_c_tasks, imagenet_p_tasks, ood_tasks, test_set_tasks

__all__ = ['Plan', 'Request', 'make_plan']

PUBLISHED_ALONE = ('imagenet-c-bar', 'imagenet-3dcc')  # protocols of corruptions that are not generated here


class Request(NamedTuple):
    """What to measure; see :func:`timm_assemble.robustness.evaluate`."""

    imagenet_c: Optional[Path] = None
    imagenet_p: Optional[Path] = None
    generate: Optional[Path] = None
    clean: Optional[Path] = None
    protocol: Optional[str] = None
    corruptions: Optional[Sequence[str]] = None
    input_size: Optional[int] = None
    shift: Optional[int] = None
    seed: int = 0
    test_sets: Mapping[str, Path] = {}
    ood: Mapping[str, Path] = {}
    keep_predictions: bool = False


@dataclass(frozen=True)
class Plan:
    """Tasks in the order of measuring, and what decides them."""

    request: Request
    protocol: Protocol
    corruptions: Tuple[str, ...]
    size: int  # side of the model's input
    text: str  # the protocol in words
    tasks: List[Task]
    libraries: Dict[str, str]  # versions of what generates corruptions
    notes: List[str] = field(default_factory=list)  # on files and folders

    @property
    def complete(self) -> bool:
        """Whether all corruptions of the protocol are measured."""
        return self.corruptions == self.protocol.corruptions

    def of_group(self, *groups: str) -> List[Task]:
        return [task for task in self.tasks if task.group in groups]

    @property
    def classes(self) -> Tuple[str, ...]:
        """Names of the class folders that have images, of what errors or flips are relative to a baseline."""
        tasks = self.of_group('corruption') or self.of_group('clean') or self.of_group('perturbation') or self.tasks
        lists = [{name.partition('/')[0] for name, _ in task.list_files().files}
                 for task in {task.names: task for task in tasks}.values()]
        return tuple(sorted(set.intersection(*lists)))

    @property
    def data(self) -> Dict[str, Any]:
        """Folder, counts and fingerprint of the files that are read, by group or test set."""
        folders = dict(clean=self.request.generate or self.request.clean, corruption=self.request.imagenet_c,
                       perturbation=self.request.imagenet_p)
        parts = [(group, folder, self.of_group(group)) for group, folder in folders.items() if folder]
        parts += [(task.name, task.folder, [task]) for task in self.of_group('test_set', 'reference', 'ood')]
        return {name: dict(
            folder=str(folder), items=sum(task.items for task in tasks), classes=len(tasks[0].classes),
            fingerprint=hashlib.sha256(' '.join(task.data for task in tasks).encode()).hexdigest(),
        ) for name, folder, tasks in parts if tasks}


def _protocol(request: Request) -> Protocol:
    """Return the protocol of a request whose options go together."""
    images = request.imagenet_c or request.generate or request.clean or request.test_sets
    if not (images or request.imagenet_p):
        raise UserError('imagenet_c must be given, or `imagenet_p`, `generate`, `clean` or `test_sets`')
    if request.generate and (request.imagenet_c or request.clean):
        raise UserError('generate corrupts clean images, and takes neither `imagenet_c` nor `clean`')
    name = request.protocol or ('assemble' if request.generate else 'imagenet-c')
    if name not in PROTOCOLS:
        raise UserError(f'protocol must be one of {[*PROTOCOLS]}, got {name!r}')
    if request.generate and request.imagenet_p and not request.protocol:
        raise UserError('generate has images of 256 and `imagenet_p` sequences of 224: set `protocol` to imagenet-c, '
                         'or measure them one after the other')
    if name == 'assemble' and (request.imagenet_c or request.imagenet_p):
        raise UserError('protocol must be imagenet-c for published images, which are 224 x 224; assemble is for '
                         '`generate`')
    if name in PUBLISHED_ALONE and not request.imagenet_c:
        raise UserError(f'protocol {name} needs `imagenet_c`: its corruptions are read and not generated')
    if request.corruptions and not (request.imagenet_c or request.generate):
        raise UserError('corruptions need `imagenet_c` or `generate`')
    if request.shift and not (request.imagenet_c or request.generate or request.clean):
        raise UserError('shift needs images: `clean`, `generate` or `imagenet_c`')
    return PROTOCOLS[name]


def make_plan(request: Request) -> Plan:
    """Check options and folders and return the tasks; what does not fit is a ValueError."""
    protocol = _protocol(request)
    known = protocol.corruptions if protocol.name in PUBLISHED_ALONE else tuple(ALEXNET_ERROR)
    unknown = [name for name in request.corruptions or () if name not in known]
    if unknown:
        raise UserError(f'corruptions must be from {", ".join(known)}; got {", ".join(unknown)}')
    corruptions = tuple(name for name in known if name in (request.corruptions or protocol.corruptions))
    size = request.input_size or protocol.crop
    if request.shift and request.shift >= size:
        raise UserError(f"shift must be below the input's side, {size}, got {request.shift}")
    whole = Preprocessing(protocol.resize, protocol.crop, size)
    published = whole._replace(resize=0)
    tasks: List[Task] = []
    texts: List[str] = []
    notes: List[str] = []
    clean = request.generate or request.clean
    if clean:
        files = list_files(clean, parameter='generate' if request.generate else 'clean')
        notes += files.notes
        tasks.append(ErrorTask.of_files(files, whole, group='clean', name='clean',
                                        calibrated=request.keep_predictions))
        texts.append(f'clean images: {whole.describe()}')
    if request.generate:
        tasks += generated_tasks(files, whole, corruptions, request.seed)
        texts.append(f'{len(corruptions)} corruptions generated on the fly by imagecorruptions-imaug '
                     f'{metadata.version("imagecorruptions-imaug")} (seed {request.seed}, not compressed): '
                     f'{whole.describe(generated=True)}')
    if request.imagenet_c:
        found, more = imagenet_c_tasks(request.imagenet_c, published, corruptions)
        tasks += found
        notes += more
        texts.append(f'{len(corruptions)} corruptions, images as published: {published.describe()}')
        if clean and class_folders(found[0].folder) != class_folders(clean):
            raise UserError(f'clean must have the classes of `imagenet_c`, {clean} has others')
    if request.imagenet_p:
        tasks += imagenet_p_tasks(request.imagenet_p, published)
        texts.append(f'sequences as published: {published.describe()}, noise against the first frame, others against '
                     'the frame before')
    if request.shift:  # of images that are files
        tasks += [ShiftTask('shift', task.name, task.severity, task.folder, task.items, task.data, task.names,
                            task.classes, task.preprocessing, request.shift, request.seed)
                  for task in tasks if isinstance(task, ErrorTask) and task.corruption is None]
        texts.append(f'shift: two random crops of {size} at most {request.shift} pixels apart (seed {request.seed}), '
                     'of images resized in proportion and padded by reflection where they are too small')
    if request.test_sets or request.ood:
        for make, folders in ((test_set_tasks, request.test_sets), (ood_tasks, request.ood)):
            more_tasks, more = make(folders, clean, whole)
            tasks += more_tasks
            notes += more
        texts.append(f'test sets {", ".join([*request.test_sets, *request.ood])}: {whole.describe()}')
    return Plan(request, protocol, corruptions, size, '; '.join(texts), tasks,
                library_versions() if request.generate else {}, [*dict.fromkeys(notes)])
