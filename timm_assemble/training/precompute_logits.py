"""Run a teacher over a data set and store its logits, in one process or under torchrun."""
import warnings
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate

from ..models.pretrained_cfg import input_channels
from ..utils.checksum import weights_sha256
from ..utils.distributed import Ranks
from .dataset_fingerprint import fingerprint
from .logit_store import StoreInfo, TeacherLogitsWriter, shrink

__all__ = ['available_device', 'store_teacher_logits']


@dataclass
class _Images(Dataset):
    """Images preprocessed for the teacher, or the error of one that cannot be read; timm would skip to the next.

    The error is returned because a worker process that raises it puts its traceback into the message.
    """

    dataset: Any
    transform: Any

    def __getitem__(self, index: int) -> Union[torch.Tensor, str]:
        reader = getattr(self.dataset, 'reader', None)
        try:
            if reader is None:
                image = self.dataset[index][0]
            else:
                with reader[index][0] as file:
                    image = Image.open(file).convert(self.dataset.input_img_mode or 'RGB')
        except Exception as e:  # Pillow raises errors of many kinds for damaged files
            name = f'sample {index}' if reader is None else self.dataset.filename(index)
            return f'dataset must have readable images, got {name}: {" ".join(str(e).split())}'
        return self.transform(image)


def _collate(samples: List[Union[torch.Tensor, str]]) -> Union[torch.Tensor, str]:
    return next((sample for sample in samples if isinstance(sample, str)), None) or default_collate(samples)


def _compute(
        model: nn.Module, images: _Images, info: StoreInfo, chunks: Sequence[int], batch_size: int, workers: int,
        device: torch.device, amp: bool,
) -> Iterator[Tuple[int, Dict[str, Any]]]:
    """Yield chunks and their rows. No batch crosses a chunk's end, so that rows do not depend on where a run began."""
    batches = [[list(info.chunk(chunk))[i:i + batch_size] for i in range(0, len(info.chunk(chunk)), batch_size)]
               for chunk in chunks]
    loader = iter(DataLoader(
        images, batch_sampler=[*chain(*batches)], num_workers=workers, collate_fn=_collate,
        pin_memory=device.type == 'cuda'))
    amp_dtype = torch.float16 if device.type == 'cuda' else torch.bfloat16
    for chunk, batches_of_chunk in zip(chunks, batches):
        rows: List[torch.Tensor] = []
        for batch in batches_of_chunk:
            x = next(loader)
            if isinstance(x, str):
                raise ValueError(x)
            with torch.inference_mode(), torch.autocast(device.type, amp_dtype, enabled=amp):
                rows.append(model(x.to(device, non_blocking=True)).float().cpu())
            finite = rows[-1].isfinite().all(1)
            if not finite.all():
                bad = batch[int(finite.int().argmin())]
                raise ValueError(f'model must give finite logits, got others for sample {bad}'
                                 + ('; try without `amp`' if amp else ''))
        yield chunk, shrink(torch.cat(rows), info.top_k)


def available_device(device: Union[str, torch.device]) -> torch.device:
    """Return a device of this machine.

    Raises:
        ValueError: The machine does not have it, or torch does not know it.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()
    except (RuntimeError, AssertionError) as e:
        raise ValueError(f'device must be available, got {str(device)!r}: {str(e).splitlines()[0]}') from e
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
            raise ValueError(f'{key} must have one value or {channels}, got {len(preprocessing[key])}')
    config = resolve_data_config({'in_chans': channels, **preprocessing}, model=model, use_test_size=True)
    adapted = input_channels(config, channels)
    return {**config, **{key: adapted[key] for key in ('input_size', 'mean', 'std')}}


def store_teacher_logits(
        model: nn.Module,
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
        ValueError: The device does not exist, class counts or channels do not match, the folder holds other files, an
            image cannot be read, or logits are not finite.

    Source: arXiv 2001.06268 section 3.2: logits of each training image are computed once.
    """
    from tqdm import tqdm

    device = available_device(device)
    samples = fingerprint(dataset)
    config = _data_config(model, preprocessing or {})
    num_classes: Any = model.num_classes
    if samples.classes > num_classes:
        raise ValueError(f'dataset must have at most {num_classes} classes, those of {name}, got {samples.classes}')
    if not 0 <= top_k < num_classes:
        raise ValueError(f'top_k must be from 0 to {num_classes - 1}, below the number of classes, got {top_k}')
    channels, mode = config['input_size'][0], getattr(dataset, 'input_img_mode', None)
    if mode and _bands(mode) != channels:
        raise ValueError(f'input_img_mode must be a mode with {channels} channels, those of {name}, got {mode!r}')
    if samples.classes < num_classes:
        warnings.warn(f'the data set has {samples.classes} classes, the teacher {num_classes}: '
                      f'a student needs {num_classes} outputs', stacklevel=2)
    info = StoreInfo(
        teacher={'name': name, 'weights_sha256': weights_sha256(model.state_dict()), 'amp': amp},
        preprocessing={key: list(value) if isinstance(value, tuple) else value for key, value in config.items()},
        samples=samples.as_dict(), num_classes=num_classes, top_k=top_k, chunk_size=chunk_size)
    writer = TeacherLogitsWriter(output, info)
    dataset.transform = None
    images = _Images(dataset, create_transform(**config, is_training=False))
    model = model.eval().to(device)
    with Ranks() as ranks:
        ranks.from_first(writer.prepare)
        chunks = ranks.own(ranks.from_first(writer.missing))
        total = sum(len(info.chunk(chunk)) for chunk in chunks)
        with tqdm(total=total, unit='image', unit_scale=True, disable=not (progress and ranks.rank == 0 and total),
                  desc=name + (f', rank 0 of {ranks.world_size}' if ranks.world_size > 1 else '')) as bar:
            for chunk, arrays in _compute(
                    model, images, info, chunks, min(batch_size, chunk_size), workers, device, amp):
                writer.write(chunk, arrays)
                bar.update(len(info.chunk(chunk)))
        ranks.barrier()
        ranks.from_first(writer.finish)
    return info
