"""Size of a store of the k largest logits and the loss of a student: ``python -m benchmarks.top_k``."""
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch

from timm_assemble.training import StoreInfo, TeacherLogits, StoreWriter, distillation_cross_entropy
from timm_assemble.training.store import shrink

from .harness.cli import finish, parse_args
from .harness.measure import make_row

QUESTION = "What do a teacher's k largest logits alone cost in accuracy, and what do they save?"
ROWS, CLASSES, IMAGENET = 4096, 1000, 1_281_167
TOP_K = (0, 1, 5, 10, 32, 100)
READ = 256  # rows per timing: a batch
# Synthetic logits, without ImageNet and its teachers. The margin is the teacher's confidence; some classes are similar
# to the right one and the others are noise. With more noise, less of the probability is in the largest logits.
TEACHERS = {'confident': 9.0, 'less confident': 6.0}


def make_logits(margin: float) -> torch.Tensor:
    """Return ``(ROWS, CLASSES)``: unit noise, one class ``margin`` above it, 10 others by decreasing amounts."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, CLASSES, generator=generator)
    above = margin + 1.5 * torch.randn(ROWS, 1, generator=generator)
    alike = torch.cat((above, above * torch.linspace(0.7, 0.1, 10)), dim=1)
    return logits.scatter_add(1, torch.rand(ROWS, CLASSES, generator=generator).argsort(1)[:, :11], alike)


def store(folder: Path, logits: torch.Tensor, top_k: int) -> TeacherLogits:
    """Write a store of these logits and open it."""
    samples = dict(count=ROWS, samples='', names='', classes=CLASSES)
    writer = StoreWriter(folder, StoreInfo({}, {}, samples, CLASSES, top_k))
    writer.prepare()
    for chunk in writer.missing():
        rows = writer.info.chunk(chunk)
        writer.write(chunk, shrink(logits[rows.start:rows.stop], top_k))
    writer.finish()
    return TeacherLogits(folder)


def reading(rows: TeacherLogits) -> Callable[[], None]:
    """Return a function that reads the rows of a batch, as a loader does."""
    def read() -> None:
        for i in range(READ):
            rows.probabilities(i)
    return read


def kl_divergence(logits: torch.Tensor, probs: torch.Tensor) -> float:
    """Return the mean divergence of the stored probabilities from the exact ones, in nats."""
    return float((logits.softmax(1) * (logits.log_softmax(1) - probs.clamp(min=1e-30).log())).sum(1).mean())


def main() -> int:
    """Measure, print and write the results."""
    args = parse_args('top_k', QUESTION, rounds=10)
    table: List[Dict[str, Any]] = []
    for teacher, margin in list(TEACHERS.items())[:1 if args.short else None]:
        logits = make_logits(margin)
        student = logits + torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(1))
        exact = float(distillation_cross_entropy(student, logits.softmax(1)))
        with tempfile.TemporaryDirectory() as folder:
            stores = {f'top {k}' if k else 'all': store(Path(folder) / str(k), logits, k) for k in TOP_K}
            seconds = args.measure({name: reading(rows) for name, rows in stores.items()})
            for name, rows in stores.items():
                probs = torch.stack([rows.probabilities(i) for i in range(ROWS)])
                size = sum(path.stat().st_size for path in rows.path.glob('*.npy')) / ROWS * IMAGENET
                loss = float(distillation_cross_entropy(student, probs))
                mean_top1 = float(logits.softmax(1).amax(1).mean())
                row = make_row(f'A {teacher} teacher, mean top-1 probability {mean_top1:.2f}; '
                               f'{READ} rows of {CLASSES} classes read', name, seconds,
                               None if name == 'all' else 'all')
                row['details'] = {
                    'MB for ImageNet-1k': size / 1e6, 'KL divergence': f'{kl_divergence(logits, probs):.1e}',
                    'loss of a student': loss, 'minus that of exact rows': f'{loss - exact:+.1e}'}
                table.append(row)
    return finish(args, QUESTION, table)


if __name__ == '__main__':
    sys.exit(main())
