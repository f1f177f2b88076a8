"""A teacher over a whole data set into a store: its own preprocessing, in one process or in those of torchrun.

Knows torch, timm's models and transforms, and the store.
"""
import hashlib
import os
import warnings
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, ContextManager, Dict, Iterator, List, Optional, Tuple, Union

import torch
import torch.distributed as dist
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn
from torch.utils.data import DataLoader, Dataset

from .dataset_fingerprint import fingerprint
from .logit_store import StoreInfo, TeacherLogitsWriter, shrink

__all__ = ['store_teacher_logits', 'weights_sha256']


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f'{name} {tuple(tensor.shape)} {tensor.dtype}\n'.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


class _Pictures(Dataset):
    """Pictures as the teacher wants them; one that cannot be read is an error, where timm would take the next."""

    def __init__(self, dataset: Any, transform: Any) -> None:
        dataset.transform = None
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> torch.Tensor:
        reader = getattr(self.dataset, 'reader', None)
        if reader is None:
            picture = self.dataset[index][0]
        else:
            try:
                with reader[index][0] as file:
                    picture = Image.open(file).convert(self.dataset.input_img_mode or 'RGB')
            except (OSError, SyntaxError) as e:
                raise ValueError(f'picture {self.dataset.filename(index)} cannot be read: {e}') from e
        return self.transform(picture)


def _autocast(device: torch.device, amp: bool) -> ContextManager:
    if not amp:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.float16 if device.type == 'cuda' else torch.bfloat16)


def _compute(
        model: nn.Module, pictures: _Pictures, info: StoreInfo, chunks: List[int], batch_size: int, workers: int,
        device: torch.device, amp: bool,
) -> Iterator[Tuple[int, Dict[str, Any]]]:
    """Chunks with their rows. No batch reaches over a chunk's end: a row does not depend on where a run began."""
    batches = [(chunk, list(info.chunk(chunk))[i:i + batch_size])
               for chunk in chunks for i in range(0, len(info.chunk(chunk)), batch_size)]
    loader: DataLoader = DataLoader(
        pictures, batch_sampler=[batch for _, batch in batches], num_workers=workers, pin_memory=device.type == 'cuda')
    rows: List[torch.Tensor] = []
    with torch.inference_mode():
        for i, ((chunk, batch), x) in enumerate(zip(batches, loader)):
            with _autocast(device, amp):
                logits = model(x.to(device, non_blocking=True)).float().cpu()
            if not bool(logits.isfinite().all()):
                bad = batch[int((~logits.isfinite()).any(1).nonzero()[0])]
                raise ValueError(f'the teacher gives logits that are not finite for sample {bad}'
                                 + ('; leave out --amp' if amp else ''))
            rows.append(logits)
            if i + 1 == len(batches) or batches[i + 1][0] != chunk:
                yield chunk, shrink(torch.cat(rows), info.top_k)
                rows = []


class _Ranks:
    """The processes of torchrun, which share the work; one process where there are none."""

    def __init__(self) -> None:
        self.size, self.rank = int(os.environ.get('WORLD_SIZE', 1)), int(os.environ.get('RANK', 0))

    def __enter__(self) -> '_Ranks':
        if self.size > 1:
            dist.init_process_group('gloo', timeout=timedelta(days=7))  # the fastest waits for the slowest
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self.size > 1:
            dist.destroy_process_group()

    def from_first(self, make: Any) -> Any:
        """What ``make()`` gives in the first process, in all; its ValueError as well."""
        result: List[Any] = [None, None]
        if self.rank == 0:
            try:
                result = [make(), None]
            except ValueError as e:
                result = [None, str(e)]
        if self.size > 1:
            dist.broadcast_object_list(result)
        if result[1] is not None:
            raise ValueError(result[1])
        return result[0]

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


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
    """Run a teacher over a data set's pictures, unaugmented, as its own configuration says, and store the logits.

    Killed at any moment and called again with the same arguments, it goes on with the chunks that are missing, and the
    finished store is bit-equal to that of an unbroken run.

    Args:
        model: Teacher, a timm model.
        name: What the store calls it.
        dataset: Data set of timm or torchvision by index. Its transform is replaced.
        output: Folder of the store.
        top_k: Largest logits to keep of each row, below the classes; 0 keeps all.
        batch_size: Pictures run at once; at most a chunk.
        chunk_size: Pictures whose rows are written at once, and lost by a kill in their midst.
        workers: Processes that read pictures.
        device: Device of the teacher.
        amp: Mixed precision: float16 on CUDA, bfloat16 elsewhere.
        preprocessing: What of it shall not be the teacher's own: arguments of timm's ``resolve_data_config``.
        progress: Show a bar with pictures/s and the time left, of this process's share.

    Returns:
        What the store is of.

    Raises:
        ValueError: Class counts do not match, the folder holds something else, a picture cannot be read, logits are not
            finite.

    Source: arXiv 2001.06268 section 3.2: logits of each training picture are computed once.
    """
    from tqdm import tqdm

    device = torch.device(device)
    samples = fingerprint(dataset)
    config = resolve_data_config(preprocessing or {}, model=model, use_test_size=True)
    num_classes: Any = model.num_classes
    if samples.classes > num_classes:
        raise ValueError(f'the data set has {samples.classes} classes, the teacher {name} has {num_classes}')
    if not 0 <= top_k < num_classes:
        raise ValueError(f'top_k must be from 0 to {num_classes - 1}, one less than the classes, got {top_k}')
    if samples.classes < num_classes:
        warnings.warn(f'the data set has {samples.classes} classes, the teacher {num_classes}: '
                      f'a student needs {num_classes} outputs', stacklevel=2)
    info = StoreInfo(
        teacher={'name': name, 'weights_sha256': weights_sha256(model), 'amp': amp},
        preprocessing={key: list(value) if isinstance(value, tuple) else value for key, value in config.items()},
        samples=samples.as_dict(), num_classes=num_classes, top_k=top_k, chunk_size=chunk_size)
    writer = TeacherLogitsWriter(output, info)
    pictures = _Pictures(dataset, create_transform(**config, is_training=False))
    model = model.eval().to(device)
    with _Ranks() as ranks:
        ranks.from_first(writer.prepare)
        missing: List[int] = ranks.from_first(writer.missing)
        mine = missing[ranks.rank::ranks.size]
        share = sum(len(info.chunk(chunk)) for chunk in mine)
        bar = tqdm(total=share, unit='image', unit_scale=True, disable=not (progress and ranks.rank == 0 and share),
                   desc=f'{name}' + (f', share 1 of {ranks.size}' if ranks.size > 1 else ''))
        for chunk, arrays in _compute(
                model, pictures, info, mine, min(batch_size, chunk_size), workers, device, amp):
            writer.write(chunk, arrays)
            bar.update(len(info.chunk(chunk)))
        bar.close()
        ranks.wait()
        ranks.from_first(writer.finish)
    return info
