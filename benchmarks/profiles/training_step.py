"""Where the time of a training step goes: ``python -m benchmarks.profiles.training_step`` prints a table."""
import argparse
import sys
from contextlib import nullcontext
from functools import partial
from typing import Any, Callable, Counter, Dict, List, Optional
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode

from timm_assemble.layers import drop_block

from ..training_step import BATCH_SIZE, MAIN, REFERENCE, make_step, make_trained
from .shares import part_of, shares_table

MASK = 'drop_block_mask'
# by part, what the names of its outermost operations contain
PARTS = {
    'blur: depthwise convolution': ('depthwise', ), 'blur: reflection': ('ReflectionPad2D', 'aten::pad'),
    'convolution': ('Convolution', 'aten::conv2d'), 'batch norm': ('NativeBatchNorm', 'aten::batch_norm'),
    'ReLU': ('Relu', 'aten::relu'), 'update': ('Optimizer', ),
    "SK's gate and merge, the head's mean": (
        'Mean', 'aten::mean', 'aten::sum', 'SumBackward', 'Lerp', 'aten::lerp', 'Split', 'aten::chunk', 'Sigmoid',
        'aten::sigmoid', 'SubBackward', 'aten::sub', 'Div', 'aten::div'),
    'DropBlock: mask': (MASK, ), 'DropBlock: product': ('MulBackward', 'aten::mul'),
    'average pools': ('AvgPool', 'aten::avg_pool'), 'resizing': ('Upsample', 'aten::upsample'),
    'residual sums': ('AddBackward', 'aten::add'), 'casts of autocast': ('ToCopy', 'aten::to'),
}
REST = 'rest'


def _weight_shape(event: Any) -> Optional[List[int]]:
    """Return the shape of the weight of the convolution in an event."""
    for index, name in ((2, 'aten::convolution_backward'), (1, 'aten::convolution')):
        if event.key == name:
            return list(event.input_shapes[index])
    return next((shape for shape in map(_weight_shape, event.cpu_children) if shape), None)


class Operations(TorchDispatchMode):
    """Count the operations that are not views: on a CUDA device about one kernel each."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = [value.alias_info for value in func._schema.returns]
        self.count += not any(alias is not None and not alias.is_write for alias in aliases)
        return func(*args, **(kwargs or {}))


def profile_step(step: Callable[[], Any]) -> Counter[str]:
    """Return microseconds by part of one step."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as record:
        step()
    parts: Counter[str] = Counter()
    for event in record.events() or []:
        if event.cpu_parent is None:
            shape = _weight_shape(event) if 'onv' in event.key else None
            depthwise = shape is not None and len(shape) == 4 and shape[1] == 1
            parts[part_of('depthwise' if depthwise else event.key, PARTS, REST)] += event.cpu_time_total
    return parts


def main() -> int:
    """Print each part's share of the time: its least time over all steps."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.profiles.training_step', description=__doc__)
    parser.add_argument('--steps', type=int, default=6, help='profiled steps; the least time of each part counts')
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    unmasked = drop_block.drop_block_mask

    def masked(*arguments: Any, **kwargs: Any) -> torch.Tensor:
        with record_function(MASK):
            return unmasked(*arguments, **kwargs)

    columns: Dict[str, Dict[str, float]] = {}
    calls: Dict[str, int] = {}
    autocast = partial(torch.autocast, 'cpu', torch.bfloat16)
    with mock.patch.object(drop_block, MASK, masked):
        networks = (
            (REFERENCE, make_trained(REFERENCE, 'cpu')), (MAIN, make_trained(MAIN, 'cpu', drop_block_rate=0.1)))
        for name, trained in networks:
            for precision, context in (('float32', nullcontext), ('bfloat16', autocast)):
                _, step = make_step(trained, BATCH_SIZE, context)
                with Operations() as operations:
                    step()  # warms up too
                column = f'{name}, {precision}'
                found = [profile_step(step) for _ in range(args.steps)]
                columns[column] = {part: min(parts[part] for parts in found) for part in [*PARTS, REST]}
                calls[column] = operations.count
    print(shares_table('step', columns, digits=2))
    print('| operations, views not counted | ' + ' | '.join(map(str, calls.values())) + ' |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
