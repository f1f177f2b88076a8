"""From folders and options to tasks; all folders are checked before any work."""
import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .datasets.corruptions import library_versions
from .datasets.files import class_folders, list_files
from .datasets.protocols import PROTOCOLS, Preprocessing, Protocol
from .metrics import ALEXNET_ERROR
from .tasks.measurements import ErrorTask, ShiftTask, generated_tasks, imagenet_c_tasks, imagenet_p_tasks
from .tasks.task import Task

__all__ = ['Plan', 'Request', 'make_plan']


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

    @property
    def complete(self) -> bool:
        """Whether all corruptions of the protocol are measured."""
        return self.corruptions == self.protocol.corruptions

    def of_group(self, *groups: str) -> List[Task]:
        return [task for task in self.tasks if task.group in groups]

    @property
    def labelled(self) -> Optional[Path]:
        """A folder whose classes the models must have; None for flips alone."""
        return next((task.folder for task in self.of_group('clean', 'corruption')), None)

    @property
    def classes(self) -> Tuple[str, ...]:
        """Names of the class folders."""
        return class_folders(self.labelled or self.tasks[0].folder)

    @property
    def data(self) -> Dict[str, Any]:
        """Folder, counts and fingerprint of the files that are read, by group."""
        folders = dict(clean=self.request.generate or self.request.clean, corruption=self.request.imagenet_c,
                       perturbation=self.request.imagenet_p)
        return {group: dict(
            folder=str(folder), items=sum(task.items for task in tasks), classes=len(class_folders(tasks[0].folder)),
            fingerprint=hashlib.sha256(' '.join(task.data for task in tasks).encode()).hexdigest(),
        ) for group, folder in folders.items() if folder and (tasks := self.of_group(group))}


def _protocol(request: Request) -> Protocol:
    """Return the protocol of a request whose options go together."""
    images = request.imagenet_c or request.generate or request.clean
    if not (images or request.imagenet_p):
        raise ValueError('imagenet_c must be given, or `imagenet_p`, `generate` or `clean`')
    if request.generate and (request.imagenet_c or request.clean):
        raise ValueError('generate corrupts clean images, and takes neither `imagenet_c` nor `clean`')
    name = request.protocol or ('assemble' if request.generate else 'imagenet-c')
    if name not in PROTOCOLS:
        raise ValueError(f'protocol must be one of {[*PROTOCOLS]}, got {name!r}')
    if request.generate and request.imagenet_p and not request.protocol:
        raise ValueError('generate has images of 256 and `imagenet_p` sequences of 224: set `protocol` to imagenet-c, '
                         'or measure them one after the other')
    if name == 'assemble' and (request.imagenet_c or request.imagenet_p):
        raise ValueError('protocol must be imagenet-c for published images, which are 224 x 224; assemble is for '
                         '`generate`')
    if request.corruptions and not (request.imagenet_c or request.generate):
        raise ValueError('corruptions need `imagenet_c` or `generate`')
    if request.shift and not images:
        raise ValueError('shift needs images: `clean`, `generate` or `imagenet_c`')
    return PROTOCOLS[name]


def make_plan(request: Request) -> Plan:
    """Check options and folders and return the tasks; what does not fit is a ValueError."""
    protocol = _protocol(request)
    unknown = [name for name in request.corruptions or () if name not in ALEXNET_ERROR]
    if unknown:
        raise ValueError(f'corruptions must be from {", ".join(ALEXNET_ERROR)}; got {", ".join(unknown)}')
    corruptions = tuple(name for name in ALEXNET_ERROR if name in (request.corruptions or protocol.corruptions))
    size = request.input_size or protocol.crop
    if request.shift and request.shift >= size:
        raise ValueError(f"shift must be below the input's side, {size}, got {request.shift}")
    whole = Preprocessing(protocol.resize, protocol.crop, size)
    published = whole._replace(resize=0)
    tasks: List[Task] = []
    texts: List[str] = []
    clean = request.generate or request.clean
    if clean:
        files = list_files(clean, parameter='generate' if request.generate else 'clean')
        tasks.append(ErrorTask.of_files(files, whole, group='clean', name='clean'))
        texts.append(f'clean images: {whole.describe()}')
    if request.generate:
        tasks += generated_tasks(files, whole, corruptions, request.seed)
        texts.append(f'{len(corruptions)} corruptions generated on the fly by imagecorruptions-imaug '
                     f'{metadata.version("imagecorruptions-imaug")} (seed {request.seed}, not compressed): '
                     f'{whole.describe(generated=True)}')
    if request.imagenet_c:
        found = imagenet_c_tasks(request.imagenet_c, published, corruptions)
        tasks += found
        texts.append(f'{len(corruptions)} corruptions, images as published: {published.describe()}')
        if clean and class_folders(found[0].folder) != class_folders(clean):
            raise ValueError(f'clean must have the classes of `imagenet_c`, {clean} has others')
    if request.imagenet_p:
        tasks += imagenet_p_tasks(request.imagenet_p, published)
        texts.append(f'sequences as published: {published.describe()}, noise against the first frame, others against '
                     'the frame before')
    if request.shift:  # of images that are files
        tasks += [ShiftTask('shift', task.name, task.severity, task.folder, task.items, task.data, task.preprocessing,
                            request.shift, request.seed)
                  for task in tasks if isinstance(task, ErrorTask) and task.corruption is None]
        texts.append(f'shift: two random crops of {size} at most {request.shift} pixels apart (seed {request.seed}), '
                     'of images resized in proportion and padded by reflection where they are too small')
    return Plan(request, protocol, corruptions, size, '; '.join(texts), tasks,
                library_versions() if request.generate else {})
