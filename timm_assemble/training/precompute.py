"""Run a teacher over a data set, or over augmented views of it, and store its logits; in one process or torchrun's."""
import warnings
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms.functional import pil_to_tensor  # type: ignore[import-untyped]

from ..data.fingerprint import SampleFingerprint, fingerprint
from ..data.images import UnreadableError
from ..data.preprocessing import Preprocessing, Size, normalize, size_of
from ..data.samples import Samples
from ..errors import UserError, check, check_integer
from ..runtime.checksum import weights_sha256
from ..runtime.device import amp_dtype, find_device
from ..runtime.ranks import Ranks
from .store import StoreInfo, StoreWriter, check_content, check_rows, read_info
from .view_store import ViewInfo
from .view_mixing import Mixing, describe_mixing, draw_view, sources_of
from .view_transform import checksum, describe_transform, make_view_transform, pixel_versions

__all__ = ['store_teacher_logits', 'store_teacher_views']


@dataclass
class _Images(Dataset):
    """Images preprocessed for the teacher, each with 0 as its seed and its content's checksum.

    What cannot be read is an error in place of the sample: raised in a worker, it would end the run.
    """

    samples: Samples
    transform: Any
    verify_content: bool

    def __getitem__(self, index: int) -> Any:
        try:
            return self.transform(self.samples.read(index)[0]), 0, self.samples.checksum(index, self.verify_content)
        except UserError as e:
            return e


@dataclass
class _Views(Dataset):
    """Augmented views as uint8, each with its seed and the checksum of its pixels; or an error."""

    samples: Samples
    transform: Any
    mixing: Optional[Mixing]
    seed: int

    def __getitem__(self, key: Tuple[int, int]) -> Any:
        try:
            images = [self.samples.read(source)[0]
                      for source in sources_of(self.mixing, self.seed, *key, len(self.samples))]
            view, seed = draw_view(self.transform, self.mixing, images, self.seed, *key)
        except UserError as e:
            return e
        return pil_to_tensor(view), seed, checksum(view)


class _ViewTeacher(nn.Module):
    """A teacher of uint8 views: it normalizes them with the teacher's statistics and resizes them to its input size."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, size: Optional[Size]) -> None:
        super().__init__()
        self.model, self.preprocessing, self.size = model, preprocessing, size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = normalize(x, *self.preprocessing.statistics(x.device))
        if self.size and x.shape[-2:] != self.size:
            x = F.interpolate(x, self.size, mode='bicubic', antialias=True)
        return self.model(x)


def _collate(samples: List[Any]) -> Any:
    """Return a batch, or the errors that are in it."""
    return [sample for sample in samples if isinstance(sample, UserError)] or default_collate(samples)


def _compute(
        model: nn.Module, images: Dataset, info: StoreInfo, units: Sequence[int], batch_size: int, workers: int,
        device: torch.device, unreadable: Dict[str, UnreadableError],
) -> Iterator[Tuple[int, Optional[Dict[str, Any]]]]:
    """Yield units and their rows, None for a unit with an image that cannot be read, which ``unreadable`` gets.

    No batch crosses a unit's end, so that rows do not depend on where a run began.
    """
    def batches_of(unit: int) -> List[List[Any]]:
        keys = [*info.keys(unit)]
        return [keys[i:i + batch_size] for i in range(0, len(keys), batch_size)]

    sampler: Any = (batch for unit in units for batch in batches_of(unit))
    loader = iter(DataLoader(images, batch_sampler=sampler, num_workers=workers, collate_fn=_collate,
                             pin_memory=device.type == 'cuda'))
    amp = info.teacher['amp']
    for unit in units:
        batches, parts = batches_of(unit), []
        for batch in batches:
            loaded = next(loader)
            if isinstance(loaded[0], UserError):
                for error in loaded:
                    if not isinstance(error, UnreadableError):
                        raise error
                    unreadable[error.path] = error
                continue
            with torch.inference_mode(), torch.autocast(device.type, amp_dtype(device), enabled=amp):
                rows = model(loaded[0].to(device, non_blocking=True)).float().cpu()
            finite = rows.isfinite().all(1)
            if not finite.all():
                raise UserError(f'model must give finite logits, got others for sample '
                                f'{batch[int(finite.int().argmin())]}' + ('; try without `amp`' if amp else ''))
            parts.append((rows, *loaded[1:]))
        complete = len(parts) == len(batches)
        yield unit, info.pack(unit, *map(torch.cat, zip(*parts))) if complete else None


def _store(
        model: nn.Module, images: Union[_Images, _Views], info: StoreInfo, output: Path, batch_size: int, workers: int,
        device: torch.device, progress: bool,
) -> Any:
    """Compute and write the missing units of a store, divided among torchrun's ranks; return what it belongs to.

    Raises:
        UserError: Images cannot be read; all other units are written.
    """
    from tqdm import tqdm

    check_integer(batch_size, 'batch_size', 1), check_integer(workers, 'workers', 0)
    writer, unreadable = StoreWriter(output, info), {}  # type: ignore[var-annotated]
    model = model.eval().to(device)
    with Ranks() as ranks:
        ranks.from_first(writer.prepare)
        missing = ranks.from_first(writer.missing)
        units = ranks.own(missing)
        if isinstance(images, _Images):
            done = [*chain(*(info.chunk(unit) for unit in sorted({*range(info.num_units)} - {*missing})))]
            ranks.from_first(lambda: check_content(
                images.samples, done, writer.checksums() if done else (), info, 'output', output))
        total = sum(len(info.keys(unit)) for unit in units)
        name = info.teacher['name'] + (f', rank 0 of {ranks.world_size}' if ranks.world_size > 1 else '')
        with tqdm(total=total, unit=info.UNIT, unit_scale=True, desc=name,
                  disable=not (progress and ranks.rank == 0 and total)) as bar:
            for unit, arrays in _compute(
                    model, images, info, units, min(batch_size, info.chunk_size), workers, device, unreadable):
                if arrays is not None:
                    for rows in arrays.values() if isinstance(images, _Views) else (arrays,):
                        check_rows(output, rows, info.num_classes, progress=False)
                    writer.write(unit, arrays)
                bar.update(len(info.keys(unit)))
        lines = sorted({str(error) for error in ranks.gather([*unreadable.values()])})
        if lines:
            raise UserError(f'dataset must have readable images, got {len(lines)} that cannot be read: '
                            f'{"; ".join(lines)}; all chunks without them are stored')
        ranks.from_first(writer.finish)
        return ranks.from_first(lambda: read_info(output, type(info))[0])


def _bands(mode: str) -> int:
    try:
        return Image.getmodebands(mode)
    except KeyError:
        return 0


def _check_dataset(model: nn.Module, name: str, dataset: Any, channels: int, top_k: int) -> SampleFingerprint:
    """Check that a teacher and a number of stored logits fit a data set, and return its fingerprint."""
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    check(dtype == torch.float32, 'model', dtype, 'in float32; `amp` runs it in half precision')
    samples = fingerprint(dataset)
    num_classes: Any = model.num_classes
    if samples.classes > num_classes:
        raise UserError(f'dataset must have at most {num_classes} classes, those of {name}, got {samples.classes}')
    if not 0 <= check_integer(top_k, 'top_k', 0) < num_classes:
        raise UserError(f'top_k must be from 0 to {num_classes - 1}, below the number of classes, got {top_k}')
    mode = getattr(dataset, 'input_img_mode', None)
    if mode and _bands(mode) != channels:
        raise UserError(f'input_img_mode must be a mode with {channels} channels, those of {name}, got {mode!r}')
    for folder in Samples(dataset).folders_like_images():
        warnings.warn(f'{folder} cannot be read: it is a folder', stacklevel=3)
    if 0 < samples.classes < num_classes:
        warnings.warn(f'the data set has {samples.classes} classes, the teacher {num_classes}: '
                      f'a student needs {num_classes} outputs', stacklevel=3)
    return samples


def store_teacher_logits(
        model: Any,
        name: str,
        dataset: Any,
        output: Union[str, Path],
        top_k: int = 0,
        batch_size: int = 64,
        chunk_size: int = 1024,
        workers: int = 4,
        device: Union[str, torch.device, None] = None,
        amp: bool = False,
        preprocessing: Optional[Dict[str, Any]] = None,
        verify_content: bool = False,
        progress: bool = True,
) -> StoreInfo:
    """Run a teacher over the unaugmented images of a data set and store the logits.

    After a kill at any moment, a call with the same arguments computes the missing chunks; the finished store is
    bit-equal to that of an uninterrupted run.

    Args:
        model: Teacher, a timm model.
        name: Name of the teacher in the store.
        dataset: Map-style data set of timm or torchvision. Its transform is replaced.
        output: Folder of the store.
        top_k: Number of largest logits to store per row, below the number of classes; 0 stores all.
        batch_size: Images per batch, at most a chunk.
        chunk_size: Images whose rows are written at once; a kill loses the chunk in progress.
        workers: Worker processes that read images.
        device: Device of the teacher; CUDA if there is one, else the CPU, if None.
        amp: Mixed precision: float16 on CUDA, bfloat16 elsewhere.
        preprocessing: Arguments of timm's ``resolve_data_config`` that override the teacher's own test preprocessing.
        verify_content: Whether the checksums by which training notices changed files cover all of each file, instead of
            its size and 16 KiB at each end.
        progress: Show a bar with images/s and the remaining time of rank 0.

    Returns:
        What the logits belong to.

    Raises:
        UserError: The device does not exist, class counts or channels do not match, the folder holds other files,
            images changed since it was begun, or logits are not finite. Or images cannot be read: the message names
            all of them, the chunks without them are stored, and a call with repaired files computes the others.

    Source: arXiv 2001.06268 section 3.2: logits of each training image are computed once.
    """
    device, chunk_size = find_device(device), check_integer(chunk_size, 'chunk_size', 1)
    pre = Preprocessing.of_model(model, **(preprocessing or {}))
    samples = _check_dataset(model, name, dataset, pre.channels, top_k)
    info = StoreInfo(
        teacher={'name': name, 'weights_sha256': weights_sha256(model.state_dict()), 'amp': amp},
        preprocessing=pre.to_dict(), samples=samples.as_dict(), num_classes=model.num_classes, top_k=int(top_k),
        chunk_size=chunk_size, verify_content=verify_content)
    images = _Images(Samples(dataset), pre.transform(), verify_content)
    return _store(model, images, info, Path(output), batch_size, workers, device, progress)


def store_teacher_views(
        model: Any,
        name: str,
        dataset: Any,
        output: Union[str, Path],
        transform: Dict[str, Any],
        views: int,
        top_k: Optional[int] = None,
        seed: int = 0,
        teacher_size: Union[int, Size, None] = None,
        batch_size: int = 64,
        chunk_size: int = 1024,
        workers: int = 4,
        device: Union[str, torch.device, None] = None,
        amp: bool = False,
        progress: bool = True,
        mixing: Optional[Dict[str, Any]] = None,
) -> ViewInfo:
    """Run a teacher over V augmented views of every image and store its logits with the views' seeds and checksums.

    After a kill at any moment, a call with the same arguments computes the missing chunks; the finished store is
    bit-equal to that of an uninterrupted run. A call with more views adds the new ones to a store.

    Args:
        model: Teacher, a timm model. It sees the pixels of the student's view, normalized with its own statistics.
        name: Name of the teacher in the store.
        dataset: Map-style data set of timm or torchvision. Its transform is replaced.
        output: Folder of the store.
        transform: The training's arguments of timm's ``create_loader`` that decide the pixels, such as ``input_size``,
            ``scale`` and ``auto_augment``; see :func:`.describe_transform`.
        views: Number of views per image, V.
        top_k: Number of largest logits to store per view; 0 stores all. By default 10, or all of at most 10 classes.
        seed: Seed of the views.
        teacher_size: Height and width, or one number for both, to which the views are resized for the teacher; by
            default they are not.
        batch_size, chunk_size, workers, device, amp, progress: As in :func:`store_teacher_logits`.
        mixing: The training's arguments of mixup and CutMix, as train.py's: ``mixup``, ``cutmix``, ``cutmix_minmax``,
            ``mixup_prob``, ``mixup_switch_prob``. Each view is then a mixture of an image with another one, and so is
            what the teacher sees. None stores views that are not mixed.

    Returns:
        What the views belong to.

    Raises:
        UserError: As in :func:`store_teacher_logits`, or an argument is outside its range.
        TypeError: ``transform`` or ``mixing`` has an unknown argument.

    Source: arXiv 2303.08983 section 3, which stores augmentation parameters and the teacher's largest probabilities.
    """
    device = find_device(device)
    size = None if teacher_size is None else size_of(teacher_size, 'teacher_size')
    views, seed = check_integer(views, 'views', 1), check_integer(seed, 'seed', 0)
    check(seed < 1 << 32, 'seed', seed, f'from 0 to {(1 << 32) - 1}')
    chunk_size = check_integer(chunk_size, 'chunk_size', 1)
    description = describe_transform(getattr(dataset, 'input_img_mode', None), **transform)
    mixed = None if mixing is None else describe_mixing(**mixing)
    bounds = mixed['cutmix_minmax'] if mixed else None
    for side in description['input_size'][1:] if bounds else ():
        pixels = [int(side * bound) for bound in bounds or ()]
        check(pixels[0] < pixels[1], 'cutmix_minmax', tuple(bounds or ()), f'a pixel or more apart, of {side}')
    try:
        view_transform = make_view_transform(description)
    except Exception as e:  # timm's errors for unknown policies and modes are of many kinds
        raise UserError(f'transform must be one that timm builds, got {type(e).__name__}: {e}') from e
    pre = Preprocessing.of_model(model)
    if description['input_size'][0] != pre.channels:
        raise UserError(f'model must have as many input channels as the views, {description["input_size"][0]}, got '
                        f'{pre.channels} of {name}')
    num_classes = int(model.num_classes)
    top_k = (10 if num_classes > 10 else 0) if top_k is None else top_k
    samples = _check_dataset(model, name, dataset, pre.channels, top_k)
    check(mixed is None or samples.count > 1, 'dataset', samples.count, 'of two or more images to mix them')
    info = ViewInfo(
        teacher={'name': name, 'weights_sha256': weights_sha256(model.state_dict()), 'amp': amp},
        preprocessing={'mean': list(pre.mean), 'std': list(pre.std), 'size': size and list(size)},
        samples=samples.as_dict(), num_classes=num_classes, top_k=int(top_k), chunk_size=chunk_size,
        transform={**description, 'mixing': mixed} if mixed else description, versions=pixel_versions(), seed=seed,
        views=views)
    images = _Views(Samples(dataset), view_transform, Mixing(mixed) if mixed else None, seed)
    stored: ViewInfo = _store(
        _ViewTeacher(model, pre, size), images, info, Path(output), batch_size, workers, device, progress)
    if stored.views > views:
        warnings.warn(f'{output} has {stored.views} views already; views={views} changes nothing', stacklevel=2)
    return stored
