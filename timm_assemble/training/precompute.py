"""Run a teacher over a data set, or over augmented views of it, and store its logits; in one process or torchrun's."""
import warnings
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms.functional import pil_to_tensor  # type: ignore[import-untyped]

from ..errors import UserError
from ..data.preprocessing import input_channels
from ..runtime.checksum import weights_sha256
from ..runtime.ranks import Ranks
from ..data.fingerprint import SampleFingerprint, fingerprint
from .store import StoreInfo, StoreWriter
from .view_store import ViewInfo
from .view_transform import (
    checksum, describe_transform, make_view_transform, pixel_versions, seeded_generators, view_seed,
)

__all__ = ['available_device', 'store_teacher_logits', 'store_teacher_views']


def read_image(dataset: Any, index: int) -> Image.Image:
    """Read an image of a data set without its transform; timm's data set would skip an unreadable one to the next.

    Raises:
        UserError: It cannot be read; the message names it.
    """
    reader = getattr(dataset, 'reader', None)
    try:
        if reader is None:
            return dataset[index][0]
        with reader[index][0] as file:
            return Image.open(file).convert(dataset.input_img_mode or 'RGB')
    except Exception as e:  # Pillow raises errors of many kinds for damaged files
        name = f'sample {index}' if reader is None else dataset.filename(index)
        raise UserError(f'dataset must have readable images, got {name}: {" ".join(str(e).split())}') from e


@dataclass
class _Images(Dataset):
    """Images preprocessed for the teacher, each with 0 as its checksum; or an error, whose traceback would be shown."""

    dataset: Any
    transform: Any

    def __getitem__(self, index: int) -> Any:
        try:
            return self.transform(read_image(self.dataset, index)), 0
        except ValueError as e:
            return str(e)


@dataclass
class _Views(Dataset):
    """Augmented views as uint8, each with the checksum of its pixels; or an error."""

    dataset: Any
    transform: Any
    seed: int

    def __getitem__(self, key: Tuple[int, int]) -> Any:
        try:
            image = read_image(self.dataset, key[0])
        except ValueError as e:
            return str(e)
        with seeded_generators(view_seed(self.seed, *key)):
            view = self.transform(image)
        return pil_to_tensor(view), checksum(view)


class _Normalized(nn.Module):
    """A teacher of uint8 views: it normalizes them with the teacher's statistics and resizes them to its input size."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float], size: Optional[int]) -> None:
        super().__init__()
        self.model, self.size = model, size
        self.register_buffer('mean', 255 * torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', 255 * torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x.float() - self.mean) / self.std
        if self.size and x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode='bicubic', antialias=True)
        return self.model(x)


def _collate(samples: List[Any]) -> Any:
    return next((sample for sample in samples if isinstance(sample, str)), None) or default_collate(samples)


def _compute(
        model: nn.Module, images: Dataset, info: StoreInfo, units: Sequence[int], batch_size: int, workers: int,
        device: torch.device, amp: bool,
) -> Iterator[Tuple[int, Dict[str, Any]]]:
    """Yield units and their rows. No batch crosses a unit's end, so that rows do not depend on where a run began."""
    batches = [[list(info.keys(unit))[i:i + batch_size] for i in range(0, len(info.keys(unit)), batch_size)]
               for unit in units]
    loader = iter(DataLoader(
        images, batch_sampler=[*chain(*batches)], num_workers=workers, collate_fn=_collate,
        pin_memory=device.type == 'cuda'))
    amp_dtype = torch.float16 if device.type == 'cuda' else torch.bfloat16
    for unit, batches_of_unit in zip(units, batches):
        rows: List[torch.Tensor] = []
        checksums: List[torch.Tensor] = []
        for batch in batches_of_unit:
            loaded = next(loader)
            if isinstance(loaded, str):
                raise UserError(loaded)
            with torch.inference_mode(), torch.autocast(device.type, amp_dtype, enabled=amp):
                rows.append(model(loaded[0].to(device, non_blocking=True)).float().cpu())
            checksums.append(loaded[1])
            finite = rows[-1].isfinite().all(1)
            if not finite.all():
                bad = batch[int(finite.int().argmin())]
                raise UserError(f'model must give finite logits, got others for sample {bad}'
                                 + ('; try without `amp`' if amp else ''))
        yield unit, info.pack(unit, torch.cat(rows), torch.cat(checksums).numpy())


def _store(
        model: nn.Module, images: Dataset, info: StoreInfo, output: Union[str, Path], batch_size: int, workers: int,
        device: torch.device, progress: bool,
) -> None:
    """Compute and write the missing units of a store, divided among torchrun's ranks."""
    from tqdm import tqdm

    writer = StoreWriter(output, info)
    model = model.eval().to(device)
    with Ranks() as ranks:
        ranks.from_first(writer.prepare)
        units = ranks.own(ranks.from_first(writer.missing))
        total = sum(len(info.keys(unit)) for unit in units)
        name = info.teacher['name'] + (f', rank 0 of {ranks.world_size}' if ranks.world_size > 1 else '')
        with tqdm(total=total, unit=info.UNIT, unit_scale=True, desc=name,
                  disable=not (progress and ranks.rank == 0 and total)) as bar:
            for unit, arrays in _compute(
                    model, images, info, units, min(batch_size, info.chunk_size), workers, device,
                    info.teacher['amp']):
                writer.write(unit, arrays)
                bar.update(len(info.keys(unit)))
        ranks.barrier()
        ranks.from_first(writer.finish)


def available_device(device: Union[str, torch.device]) -> torch.device:
    """Return a device of this machine.

    Raises:
        UserError: The machine does not have it, or torch does not know it.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()
    except (RuntimeError, AssertionError) as e:
        raise UserError(f'device must be available, got {str(device)!r}: {str(e).splitlines()[0]}') from e
    return found


def _bands(mode: str) -> int:
    try:
        return Image.getmodebands(mode)
    except KeyError:
        return 0


def _data_config(model: nn.Module, preprocessing: Dict[str, Any]) -> Dict[str, Any]:
    """Return the teacher's test preprocessing, for the model's own number of input channels."""
    channels = getattr(model, 'in_chans', None) or resolve_data_config(preprocessing, model=model)['input_size'][0]
    for key in ('mean', 'std'):
        if len(preprocessing.get(key) or (0,)) not in (1, channels):
            raise UserError(f'{key} must have one value or {channels}, got {len(preprocessing[key])}')
    config = resolve_data_config({'in_chans': channels, **preprocessing}, model=model, use_test_size=True)
    adapted = input_channels(config, channels)
    return {**config, **{key: adapted[key] for key in ('input_size', 'mean', 'std')}}


def _check_dataset(model: nn.Module, name: str, dataset: Any, channels: int, top_k: int) -> SampleFingerprint:
    """Check that a teacher and a number of stored logits fit a data set, and return its fingerprint."""
    samples = fingerprint(dataset)
    num_classes: Any = model.num_classes
    if samples.classes > num_classes:
        raise UserError(f'dataset must have at most {num_classes} classes, those of {name}, got {samples.classes}')
    if not 0 <= top_k < num_classes:
        raise UserError(f'top_k must be from 0 to {num_classes - 1}, below the number of classes, got {top_k}')
    mode = getattr(dataset, 'input_img_mode', None)
    if mode and _bands(mode) != channels:
        raise UserError(f'input_img_mode must be a mode with {channels} channels, those of {name}, got {mode!r}')
    if samples.classes < num_classes:
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
        device: Union[str, torch.device] = 'cpu',
        amp: bool = False,
        preprocessing: Optional[Dict[str, Any]] = None,
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
        device: Device of the teacher.
        amp: Mixed precision: float16 on CUDA, bfloat16 elsewhere.
        preprocessing: Arguments of timm's ``resolve_data_config`` that override the teacher's own test preprocessing.
        progress: Show a bar with images/s and the remaining time of rank 0.

    Returns:
        What the logits belong to.

    Raises:
        UserError: The device does not exist, class counts or channels do not match, the folder holds other files, an
            image cannot be read, or logits are not finite.

    Source: arXiv 2001.06268 section 3.2: logits of each training image are computed once.
    """
    device = available_device(device)
    config = _data_config(model, preprocessing or {})
    samples = _check_dataset(model, name, dataset, config['input_size'][0], top_k)
    info = StoreInfo(
        teacher={'name': name, 'weights_sha256': weights_sha256(model.state_dict()), 'amp': amp},
        preprocessing={key: list(value) if isinstance(value, tuple) else value for key, value in config.items()},
        samples=samples.as_dict(), num_classes=model.num_classes, top_k=top_k, chunk_size=chunk_size)
    dataset.transform = None
    images = _Images(dataset, create_transform(**config, is_training=False))
    _store(model, images, info, output, batch_size, workers, device, progress)
    return info


def store_teacher_views(
        model: Any,
        name: str,
        dataset: Any,
        output: Union[str, Path],
        transform: Dict[str, Any],
        views: int,
        top_k: Optional[int] = None,
        seed: int = 0,
        teacher_size: Optional[int] = None,
        batch_size: int = 64,
        chunk_size: int = 1024,
        workers: int = 4,
        device: Union[str, torch.device] = 'cpu',
        amp: bool = False,
        progress: bool = True,
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
        teacher_size: Height and width to which the views are resized for the teacher; by default they are not.
        batch_size, chunk_size, workers, device, amp, progress: As in :func:`store_teacher_logits`.

    Returns:
        What the views belong to.

    Raises:
        UserError: As in :func:`store_teacher_logits`, or an argument is outside its range.
        TypeError: ``transform`` has an unknown argument.

    Source: arXiv 2303.08983 section 3, which stores augmentation parameters and the teacher's largest probabilities.
    """
    device = available_device(device)
    if views < 1:
        raise UserError(f'views must be 1 or more, got {views!r}')
    if not 0 <= seed < 1 << 32:
        raise UserError(f'seed must be from 0 to {(1 << 32) - 1}, got {seed!r}')
    description = describe_transform(getattr(dataset, 'input_img_mode', None), **transform)
    try:
        view_transform = make_view_transform(description)
    except Exception as e:  # timm's errors for unknown policies and modes are of many kinds
        raise UserError(f'transform must be one that timm builds, got {type(e).__name__}: {e}') from e
    config = _data_config(model, {})
    channels = config['input_size'][0]
    if description['input_size'][0] != channels:
        raise UserError(f'model must have as many input channels as the views, {description["input_size"][0]}, got '
                         f'{channels} of {name}')
    num_classes = int(model.num_classes)
    top_k = (10 if num_classes > 10 else 0) if top_k is None else top_k
    samples = _check_dataset(model, name, dataset, channels, top_k)
    info = ViewInfo(
        teacher={'name': name, 'weights_sha256': weights_sha256(model.state_dict()), 'amp': amp},
        preprocessing={'mean': list(config['mean']), 'std': list(config['std']), 'size': teacher_size},
        samples=samples.as_dict(), num_classes=num_classes, top_k=top_k, chunk_size=chunk_size,
        transform=description, versions=pixel_versions(), seed=seed, views=views)
    dataset.transform = None
    images = _Views(dataset, view_transform, seed)
    teacher = _Normalized(model, config['mean'], config['std'], teacher_size)
    _store(teacher, images, info, output, batch_size, workers, device, progress)
    return info
