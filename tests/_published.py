"""Small models with non-default arguments, three in the forms that people publish, and processes that push and load.

huggingface_hub reads its environment when it is imported, so each of them is a process of its own.
"""
import argparse
import json
import os
import subprocess
import sys

import timm
import torch
import yaml
from timm.models import save_for_hf
from timm.utils import CheckpointSaver, ModelEmaV3

import timm_assemble  # noqa: F401  registers the models
from timm_assemble.models.pretrained_cfg import input_channels

FOLDER, WITH_EMA, FOUR_CHANNELS = 'folder', 'with-ema', 'four-channels'
VARIANTS = {
    FOLDER: ('test_assemble_resnet', dict(num_classes=7, width=16, aa_size=5, global_pool='gem')),
    WITH_EMA: ('assemble_resnet50_d_se', dict(num_classes=5, width=8, embedding_size=24, last_stride=1)),
    FOUR_CHANNELS: ('assemble_resnet50', dict(num_classes=3, width=8, in_chans=4, bn_eps=1e-3)),
}
# the other registered models, with every argument that decides what the weights mean among them
OTHERS = {
    'assemble_resnet50_base': dict(width=8, in_chans=1, num_classes=2, aa_size=4, aa_shortcut=True),
    'assemble_resnet50_d': dict(width=8, num_classes=4, global_pool='max', embedding_size=16, layers=(1, 2, 1, 1)),
    'assemble_resnet50_d_sk': dict(width=8, num_classes=6, aa_size=2, global_pool='gem', in_chans=5),
    'assemble_resnet50_bl': dict(width=16, num_classes=3, attn='se', embedding_size=8, big_little=(4, 2)),
    'assemble_resnet50_bl_sk': dict(width=8, num_classes=9, deep_stem=True, shortcut='d', in_chans=2),
    'assemble_resnet101': dict(width=8, aa_size=7, last_stride=1),
    'assemble_resnet152': dict(width=8, num_classes=0, aa_size=0, global_pool='gem', embedding_size=24),
}
PUSH_IN_TURN = """
import contextlib, io, json, os, sys, timm_assemble
from timm_assemble.__main__ import main
done = []
for token, *args in json.loads(sys.argv[1]):
    os.environ.pop('HF_TOKEN', None)
    os.environ.update({'HF_TOKEN': token} if token else {})
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(['push', *args])
    done.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""
PULL = """
import sys, torch, timm, timm_assemble
from tests._published import logits
torch.save([logits(timm.create_model(source, pretrained=True)) for source in sys.argv[2:]], sys.argv[1])
"""


def make_model(kind, seed=0):
    """Return a model with random weights and statistics, so that a lost one changes the logits."""
    name, args = VARIANTS[kind] if kind in VARIANTS else (kind, OTHERS[kind])
    torch.manual_seed(seed)
    overlay = input_channels(timm.get_pretrained_cfg(name).to_dict(), args.get('in_chans', 3))
    model = timm.create_model(name, pretrained_cfg_overlay=overlay, **args).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


@torch.inference_mode()
def logits(model):
    """Return the logits of fixed images, on one thread: more would add in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    channels = next(p for p in model.parameters() if p.ndim == 4).shape[1]
    out = model.eval()(torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(1)))
    torch.set_num_threads(threads)
    return out


def write_folder(folder, kind=FOLDER, seed=0):
    """Write a folder in Hugging Face format without a card; return its model."""
    model = make_model(kind, seed)
    args = VARIANTS[kind][1] if kind in VARIANTS else OTHERS[kind]
    save_for_hf(model, str(folder), safe_serialization=True, model_args=args)
    return model


def train_args(kind):
    """Return train.py's arguments for a variant; those without an option of their own are in model_kwargs."""
    name, args = VARIANTS[kind]
    own = {'num_classes', 'in_chans', 'bn_eps'}
    args = {'num_classes': None, 'in_chans': None, 'bn_eps': None, **args}
    return dict(
        model=name, gp=args.pop('global_pool', None), bn_momentum=None, input_size=None, img_size=64, crop_pct=None,
        mean=None, std=None, interpolation='', drop=0.0, drop_path=None, drop_block=None,
        model_kwargs={k: v for k, v in args.items() if k not in own}, **{k: args[k] for k in own},
        dataset='torch/cifar10', data_dir='/somewhere/private', val_split='validation', epochs=3, batch_size=4, lr=0.05,
        opt='sgd', weight_decay=1e-4, model_ema=kind == WITH_EMA, eval_metric='top1', log_wandb=False)


def write_checkpoint(folder, kind, seed=0):
    """Write what timm's train.py leaves; return the checkpoint's path and the model to publish."""
    folder.mkdir()
    args = train_args(kind)
    model = make_model(kind, seed)
    best = model
    ema = None
    if kind == WITH_EMA:
        best = make_model(kind, seed + 100)
        ema = ModelEmaV3(best)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    saver = CheckpointSaver(
        model, optimizer, args=argparse.Namespace(**args), model_ema=ema, checkpoint_dir=str(folder),
        recovery_dir=str(folder))
    saver.save_checkpoint(2, metric=61.25)
    (folder / 'args.yaml').write_text(yaml.safe_dump(args))
    return folder / 'model_best.pth.tar', best


def environment(url, home, token='hf_writer'):
    """Return the environment of a person who has never used the Hub on this machine, except for the token."""
    others = {k: v for k, v in os.environ.items() if not k.startswith(('HF_', 'HUGGING'))}
    return {**others, 'HF_ENDPOINT': url, 'HF_HOME': str(home), 'OMP_NUM_THREADS': '1', 'NO_PROXY': '127.0.0.1',
            'HF_HUB_DISABLE_XET': '1', 'PYTHONWARNINGS': 'ignore', 'XDG_CACHE_HOME': str(home),
            **({'HF_TOKEN': token} if token else {})}


def push(env, *args, cwd=None):
    return subprocess.run(
        [sys.executable, '-m', 'timm_assemble', 'push', *map(str, args)], capture_output=True, text=True, timeout=120,
        env={**env, 'PYTHONPATH': os.getcwd()}, cwd=cwd)


def push_in_turn(env, *calls):
    """Run commands in one process, which saves seconds for each; every call is a token and its arguments."""
    calls = [[token, *map(str, args)] for token, *args in calls]
    done = subprocess.run([sys.executable, '-c', PUSH_IN_TURN, json.dumps(calls)], capture_output=True, text=True,
                          timeout=240, env=env)
    assert done.returncode == 0, done.stderr
    return [subprocess.CompletedProcess(args, *said) for (_, *args), said in zip(calls, json.loads(done.stdout))]


def pull(env, file, *sources):
    """Return the logits of models loaded in a process of its own."""
    done = subprocess.run(
        [sys.executable, '-c', PULL, str(file), *sources], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    return torch.load(file)
