"""Names of the official TensorFlow variables for each entry of a model's state dict, and the change of layout.

Needs no TensorFlow: variables come as arrays, or as a mapping that reads them. Knows the model's module tree and
nothing of training or evaluation.
"""
from collections import Counter
from typing import Dict, Iterator, List, Mapping, Tuple

import numpy as np
import torch
from timm.layers import ConvNormAct, SEModule
from torch import nn

from ..layers import BigLittleStage, BigLittleStem, Bottleneck, ProjectionShortcut, SelectiveKernelC3
from ..models.assemble_resnet import AssembleResNet

__all__ = ['MisfitError', 'state_dict_from_tf', 'tf_names']

PREFIX = 'resnet_model/'
BATCH_NORM_LEAVES = {'weight': 'gamma', 'bias': 'beta', 'running_mean': 'moving_mean', 'running_var': 'moving_variance'}


class _Scope:
    """A TensorFlow variable scope, which numbers the layers of each kind in the order they are made."""

    def __init__(self, name: str = '') -> None:
        self.name = name
        self.counts: Counter = Counter()

    def next(self, kind: str) -> str:
        k = self.counts[kind]
        self.counts[kind] += 1
        return self.name + kind + (f'_{k}' if k else '')


Pair = Tuple[str, str]  # path of a module here, name of its layer there


def _conv_norm(path: str, scope: _Scope) -> Iterator[Pair]:
    yield f'{path}.conv', scope.next('conv2d')
    yield f'{path}.bn', scope.next('batch_normalization')


def _bottleneck(path: str, block: Bottleneck, scope: _Scope) -> Iterator[Pair]:
    if isinstance(block.shortcut, ProjectionShortcut):
        yield from _conv_norm(f'{path}.shortcut.{len(block.shortcut) - 1}', scope)
    yield from _conv_norm(f'{path}.conv1', scope)
    if isinstance(block.conv2, SelectiveKernelC3):
        yield from _conv_norm(f'{path}.conv2.conv', scope)
        gate = scope.next('sk_block')
        yield f'{path}.conv2.fc1.conv', f'{gate}/sk_fc_1'
        yield f'{path}.conv2.fc1.bn', f'{gate}/batch_normalization'
        yield f'{path}.conv2.fc2', f'{gate}/sk_fc_2'
    else:
        yield from _conv_norm(f'{path}.conv2', scope)
    yield from _conv_norm(f'{path}.conv3', scope)
    if isinstance(block.se, SEModule):
        gate = scope.next('se_block')
        yield f'{path}.se.fc1', f'{gate}/seblock_dense_1'
        yield f'{path}.se.fc2', f'{gate}/seblock_dense_2'


def _sequence(path: str, modules: nn.Sequential, scope: _Scope) -> Iterator[Pair]:
    for i, module in enumerate(modules):
        if isinstance(module, Bottleneck):
            yield from _bottleneck(f'{path}.{i}', module, scope)
        elif isinstance(module, ConvNormAct):
            yield from _conv_norm(f'{path}.{i}', scope)


def _module_names(model: AssembleResNet) -> Iterator[Pair]:
    """Every module with weights, in the order in which the official code makes its layers."""
    whole_net = _Scope()  # without Big-Little, one scope for all
    stem, pool = list(model.stem), None
    if isinstance(stem[-1], BigLittleStem):
        pool = f'stem.{len(stem) - 1}'
        stem = stem[:-1]
    scope = _Scope('stage0/') if pool else whole_net
    for i in range(len(stem)):
        conv, norm = _conv_norm(f'stem.{i}', scope)
        yield conv
        yield (norm[0], 'stage0_1/batch_normalization') if pool and i == len(stem) - 1 else norm
    if pool:
        scope = _Scope('stage0/pool/')
        for part in ('big', 'little.0', 'little.1', 'little.2', 'merge'):
            yield from _conv_norm(f'{pool}.{part}', scope)
    for s in range(1, 5):
        stage = getattr(model, f'stage{s}')
        if isinstance(stage, BigLittleStage):
            for part in ('big', 'little', 'merge'):
                yield from _sequence(f'stage{s}.{part}', getattr(stage, part), _Scope(f'stage{s}/{part}{s}/'))
        else:
            yield from _sequence(f'stage{s}', stage, _Scope(f'stage{s}/') if pool else whole_net)
    if isinstance(model.head.embedding, ConvNormAct):
        yield 'head.embedding.conv', 'embedding_dense'
        yield 'head.embedding.bn', 'embedding_dense_batch_normalization'
    if isinstance(model.head.fc, nn.Linear):
        yield 'head.fc', 'dense'


def tf_names(model: AssembleResNet) -> Dict[str, str]:
    """Official variable of every state dict entry, but for PyTorch's own counters ``num_batches_tracked``.

    Args:
        model: A model of the family, of any variant.

    Returns:
        ``{'stem.0.conv.weight': 'resnet_model/conv2d/kernel', ...}``
    """
    names = {}
    for path, layer in _module_names(model):
        if isinstance(model.get_submodule(path), nn.BatchNorm2d):
            names.update({f'{path}.{ours}': f'{PREFIX}{layer}/{theirs}' for ours, theirs in BATCH_NORM_LEAVES.items()})
        else:
            names[f'{path}.weight'] = f'{PREFIX}{layer}/kernel'
            if path == 'head.fc':
                names['head.fc.bias'] = f'{PREFIX}dense/bias'
    return names


def _to_torch(array: np.ndarray) -> np.ndarray:
    """TensorFlow's layout to PyTorch's: HWIO to OIHW, (in, out) to (out, in)."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T


class MisfitError(ValueError):
    """Variables that do not fill a model; ``problems`` has one line each, the message all of them."""

    def __init__(self, problems: List[str]) -> None:
        self.problems = problems
        super().__init__(f'variables do not fit the model, {len(problems)} differences:\n  ' + '\n  '.join(problems))


def state_dict_from_tf(variables: Mapping[str, np.ndarray], model: AssembleResNet) -> Dict[str, torch.Tensor]:
    """State dict of ``model`` from the official implementation's variables.

    Strict: every variable is used exactly once and every entry is filled. A classifier of one class more than the
    model's loses its first, the official "background". ``variables`` is asked for each array once, one after the
    other, so that a mapping which reads them from a file never holds two.

    Args:
        variables: ``{official variable name: array}``, TensorFlow layout, without optimizer slots and global_step.
        model: The model to fill; it is read, not changed, and may lie on the meta device.

    Returns:
        State dict for ``model.load_state_dict``, in the arrays' dtype.

    Raises:
        ValueError: Variables missing, not used, of another shape, or with values that are not finite. It is a
            :class:`MisfitError`, whose message lists them all.
    """
    names = tf_names(model)
    state: Dict[str, torch.Tensor] = {}
    problems, background = [], []
    for entry, target in model.state_dict().items():
        if entry.endswith('num_batches_tracked'):
            state[entry] = torch.zeros_like(target, device='cpu')
            continue
        name = names[entry]
        if name not in variables:
            problems.append(f'missing: {name} (for {entry}, shape {tuple(target.shape)})')
            continue
        array = _to_torch(np.asarray(variables[name]))
        if entry.startswith('head.fc.') and array.ndim == target.ndim and array.shape[0] == target.shape[0] + 1:
            array = array[1:]
            background.append(name)
        if array.shape != tuple(target.shape):
            problems.append(f'shape: {name} is {tuple(array.shape)} in PyTorch order, {entry} {tuple(target.shape)}')
            continue
        wrong = array.size - int(np.isfinite(array).sum())
        if wrong:
            problems.append(f'not finite: {name} has {wrong} of {array.size} values NaN or infinite')
            continue
        state[entry] = torch.from_numpy(np.array(array, order='C'))  # a copy of its own, contiguous and writable
    if len(background) == 1:  # of kernel and bias
        problems.append(f'shape: {background[0]} has one class more than the other of dense/kernel and dense/bias')
    problems += [f'not used: {name}' for name in sorted(set(variables) - set(names.values()))]
    if problems:
        raise MisfitError(problems)
    return state
