"""Two processes with DistributedDataParallel: every parameter has a gradient, and ranks stay equal."""
import socket
import subprocess
import sys

WORKER = '''
import os, sys, timm, timm_assemble, torch, torch.distributed as dist
torch.set_num_threads(1)
dist.init_process_group('gloo')
torch.manual_seed(dist.get_rank())
model = timm.create_model('test_assemble_resnet', num_classes=10, drop_block_rate=0.1, bn_momentum=0.1)
model = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=False)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    model.module.set_drop_block_rate(0.1 * step)
    model(torch.randn(4, 3, 64, 64)).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    optimizer.step()
    optimizer.zero_grad()
total = torch.stack([p.double().sum() for p in model.parameters()])
other = total.clone()
dist.broadcast(other, 0)
assert torch.equal(total, other), 'ranks differ'
assert abs(model.module.stage4[0].drop2.rate.item() - 0.2) < 1e-6
sys.stdout.write('done\\n')
dist.barrier()
dist.destroy_process_group()  # else a thread of gloo may outlive the interpreter and end it with SIGABRT
'''


def test_ranks_stay_equal_over_training_steps(tmp_path):
    script = tmp_path / 'worker.py'
    script.write_text(WORKER)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-addr', '127.0.0.1',
         '--master-port', str(port), str(script)],
        capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('done') == 2
