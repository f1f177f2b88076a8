"""What do the largest logits alone cost and keep? ``python -m benchmarks.top_k``

Knows torch, this package's store of teacher logits, and the harness.
"""
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch

from timm_assemble.training import StoreInfo, TeacherLogits, TeacherLogitsWriter, distillation_cross_entropy
from timm_assemble.training.logit_store import shrink

from .harness.cli import finish, parse_args
from .harness.measure import make_row

QUESTION = "What do a teacher's k largest logits alone cost in accuracy, and what do they save?"
ROWS, CLASSES, IMAGENET = 4096, 1000, 1_281_167
KEPT = (0, 1, 5, 10, 32, 100)
READ = 256  # rows read in one timing: a batch
# Without weights and pictures of ImageNet at hand, made logits. A teacher is sure of its pictures in different degrees
# and some classes are like the right one; the others are noise, and the more of it the less the largest say.
TEACHERS = {'confident': 9.0, 'less confident': 6.0}


def make_logits(margin: float) -> torch.Tensor:
    """``(ROWS, CLASSES)``: unit noise, one class above it by about ``margin``, 10 more by less and less."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, CLASSES, generator=generator)
    above = margin + 1.5 * torch.randn(ROWS, 1, generator=generator)
    alike = torch.cat((above, above * torch.linspace(0.7, 0.1, 10)), dim=1)
    return logits.scatter_add(1, torch.rand(ROWS, CLASSES, generator=generator).argsort(1)[:, :11], alike)


def store(folder: Path, logits: torch.Tensor, top_k: int) -> TeacherLogits:
    """A store of these logits, written and opened."""
    samples = dict(count=ROWS, samples='', names='', classes=CLASSES)
    writer = TeacherLogitsWriter(folder, StoreInfo({}, {}, samples, CLASSES, top_k))
    writer.prepare()
    for chunk in writer.missing():
        rows = writer.info.chunk(chunk)
        writer.write(chunk, shrink(logits[rows.start:rows.stop], top_k))
    writer.finish()
    return TeacherLogits(folder)


def reading(rows: TeacherLogits) -> Callable[[], None]:
    """A batch's rows, as a loader reads them."""
    def read() -> None:
        for i in range(READ):
            rows.probabilities(i)
    return read


def kl_divergence(logits: torch.Tensor, probs: torch.Tensor) -> float:
    """Mean over rows of the divergence of stored probabilities from the exact ones, in nats."""
    return float((logits.softmax(1) * (logits.log_softmax(1) - probs.clamp(min=1e-30).log())).sum(1).mean())


def main() -> int:
    """Measure, print, write."""
    args = parse_args('top_k', QUESTION, rounds=10)
    table: List[Dict[str, Any]] = []
    for teacher, margin in list(TEACHERS.items())[:1 if args.short else None]:
        logits = make_logits(margin)
        student = logits + torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(1))
        exact = float(distillation_cross_entropy(student, logits.softmax(1)))
        with tempfile.TemporaryDirectory() as folder:
            stores = {f'top {k}' if k else 'all': store(Path(folder) / str(k), logits, k) for k in KEPT}
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
