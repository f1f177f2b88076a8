"""Where the time of an optimized model goes: ``python -m benchmarks.profiles.inference`` prints a table."""
import argparse
import sys
from typing import Any, Counter, Dict, List

import timm
import torch
import torch._inductor.config
from torch.profiler import ProfilerActivity, profile

import timm_assemble

from .shares import part_of, shares_table

MODEL, SIZE, BATCH_SIZE = 'assemble_resnet50', 256, 4
GENERATED = 'graph_'  # prefix of generated kernels
# by part, what the names of its operations contain
PARTS = {
    "Winograd's products": ('aten::bmm',),
    "Winograd's transforms": ('winograd_conv3x3',),
    'convolutions': ('_convolution', 'conv2d'),
    'linear layers': ('linear', 'addmm', 'aten::mm'),
    'other generated code: resizing, pools, sums, casts': (GENERATED,),
}
REST = 'rest: calls, copies, memory'


def profile_call(model: Any, x: torch.Tensor) -> Counter[str]:
    """Return microseconds by part of one call; the time of nested operations counts once."""
    with profile(activities=[ProfilerActivity.CPU]) as record:
        model(x)
    parts: Counter[str] = Counter()
    for event in record.key_averages():
        parts[part_of(event.key, PARTS, REST)] += event.self_cpu_time_total
    return parts


def main() -> int:
    """Print each part's share of the time: its least time over all calls."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.profiles.inference', description=__doc__)
    parser.add_argument('--calls', type=int, default=6, help='profiled calls; the least time of each part counts')
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch._inductor.config.cpp.enable_kernel_profile = True  # generated kernels are named in the profile
    torch._inductor.config.force_disable_caches = True  # cached kernels have no names
    model = timm.create_model(MODEL).eval()
    x = torch.randn(BATCH_SIZE, 3, SIZE, SIZE)
    columns: Dict[str, Dict[str, float]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        optimized = timm_assemble.optimize_for_inference(model, x.shape, dtype)
        optimized(x)
        found: List[Counter[str]] = [profile_call(optimized, x) for _ in range(args.calls)]
        columns[str(dtype)[6:]] = {part: min(parts[part] for parts in found) for part in [*PARTS, REST]}
    print(shares_table('call', columns, digits=1))
    print('| all (ms) | ' + ' | '.join(f'{sum(parts.values()) / 1000:.0f}' for parts in columns.values()) + ' |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
