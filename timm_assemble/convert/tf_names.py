"""Names and layout of the official TensorFlow variables for each entry of a model's state dict; without TensorFlow."""
from collections import Counter
from typing import Any, Dict, Iterator, List, Mapping, Tuple

import numpy as np
import torch
from timm.layers import SEModule
from torch import nn

from ..errors import UserError, check
from ..layers import (
    BigLittleStage, BigLittleStem, Bottleneck, ConvNormAct, ProjectionShortcut, SelectiveKernelC3,
)
from ..models.assemble_resnet import AssembleResNet
from ..models.validation import check_weights

__all__ = ['MisfitError', 'state_dict_from_tf', 'tf_names', 'tf_shapes']

PREFIX = 'resnet_model/'
BATCH_NORM_LEAVES = {'weight': 'gamma', 'bias': 'beta', 'running_mean': 'moving_mean', 'running_var': 'moving_variance'}


class _Scope:
    """TensorFlow variable scope, which numbers the layers of each kind in creation order."""

    def __init__(self, name: str = '') -> None:
        self.name = name
        self.counts: Counter = Counter()

    def next(self, kind: str) -> str:
        k = self.counts[kind]
        self.counts[kind] += 1
        return self.name + kind + (f'_{k}' if k else '')


Pair = Tuple[str, str]  # path of a module in PyTorch, name of its layer in TensorFlow


def _conv_norm(path: str, scope: _Scope) -> Iterator[Pair]:
    yield f'{path}.conv', scope.next('conv2d')
    yield f'{path}.norm', scope.next('batch_normalization')


def _bottleneck(path: str, block: Bottleneck, scope: _Scope) -> Iterator[Pair]:
    if isinstance(block.shortcut, ProjectionShortcut):
        yield from _conv_norm(f'{path}.shortcut.conv', scope)
    yield from _conv_norm(f'{path}.conv1', scope)
    if isinstance(block.conv2, SelectiveKernelC3):
        yield from _conv_norm(f'{path}.conv2.conv', scope)
        gate = scope.next('sk_block')
        yield f'{path}.conv2.fc1.conv', f'{gate}/sk_fc_1'
        yield f'{path}.conv2.fc1.norm', f'{gate}/batch_normalization'
        yield f'{path}.conv2.fc2', f'{gate}/sk_fc_2'
    else:
        yield from _conv_norm(f'{path}.conv2', scope)
    yield from _conv_norm(f'{path}.conv3', scope)
    if isinstance(block.attn, SEModule):
        gate = scope.next('se_block')
        yield f'{path}.attn.fc1', f'{gate}/seblock_dense_1'
        yield f'{path}.attn.fc2', f'{gate}/seblock_dense_2'


def _sequence(path: str, modules: Any, scope: _Scope, start: int = 0) -> Iterator[Pair]:
    for i, module in enumerate(modules, start):
        if isinstance(module, Bottleneck):
            yield from _bottleneck(f'{path}.{i}', module, scope)
        elif isinstance(module, ConvNormAct):
            yield from _conv_norm(f'{path}.{i}', scope)


def _module_names(model: AssembleResNet) -> Iterator[Pair]:
    """Yield every module with weights, in the order in which the official code creates its layers."""
    network = _Scope()  # the only one without Big-Little
    big_little = isinstance(model.stem_pool, BigLittleStem)
    scope = _Scope('stage0/') if big_little else network
    for i in range(len(model.stem)):
        conv, norm = _conv_norm(f'stem.{i}', scope)
        yield conv
        yield (norm[0], 'stage0_1/batch_normalization') if big_little and i == len(model.stem) - 1 else norm
    if big_little:
        scope = _Scope('stage0/pool/')
        for part in ('big', 'little.0', 'little.1', 'little.2', 'merge'):
            yield from _conv_norm(f'stem_pool.{part}', scope)
    stage: Any
    for i, stage in enumerate(model.stages):
        path, s = f'stages.{i}', i + 1
        merge = _Scope(f'stage{i}/merge{i}/')  # opens the next stage here, and ends its own there
        if isinstance(stage, BigLittleStage):
            if i > 0:
                yield from _sequence(f'{path}.merge', stage.merge, merge)
            for part in ('big', 'little'):
                yield from _sequence(f'{path}.{part}', getattr(stage, part), _Scope(f'stage{s}/{part}{s}/'))
        elif big_little:
            yield from _bottleneck(f'{path}.0', stage[0], merge)
            yield from _sequence(path, stage[1:], _Scope(f'stage{s}/'), 1)
        else:
            yield from _sequence(path, stage, network)
    if isinstance(model.embedding, ConvNormAct):
        yield 'embedding.conv', 'embedding_dense'
        yield 'embedding.norm', 'embedding_dense_batch_normalization'
    if isinstance(model.fc, nn.Linear):
        yield 'fc', 'dense'


def tf_names(model: AssembleResNet) -> Dict[str, str]:
    """Return the official variable of every state dict entry except PyTorch's ``num_batches_tracked``.

    Args:
        model: A model of any variant.

    Returns:
        ``{'stem.0.conv.weight': 'resnet_model/conv2d/kernel', ...}``
    """
    names = {}
    for path, layer in _module_names(model):
        if path.endswith('norm'):
            norm = model.get_submodule(path)
            check(type(norm) is nn.BatchNorm2d, 'norm_layer', norm, 'batchnorm2d, as in the official networks')
            names.update({f'{path}.{entry}': f'{PREFIX}{layer}/{leaf}' for entry, leaf in BATCH_NORM_LEAVES.items()})
        else:
            names[f'{path}.weight'] = f'{PREFIX}{layer}/kernel'
            if path == 'fc':
                names['fc.bias'] = f'{PREFIX}dense/bias'
    return names


def tf_shapes(model: AssembleResNet) -> Dict[str, Tuple[int, ...]]:
    """Return the shape of every official variable in TensorFlow's layout."""
    entries = model.state_dict()
    shapes = {name: tuple(entries[entry].shape) for entry, name in tf_names(model).items()}
    return {name: (*s[2:], s[1], s[0]) if len(s) == 4 else s[::-1] for name, s in shapes.items()}


def _to_torch(array: np.ndarray) -> np.ndarray:
    """Change TensorFlow's layout to PyTorch's: HWIO to OIHW, (in, out) to (out, in)."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T


class MisfitError(UserError):
    """Variables that do not fit a model; ``problems`` has one line each."""

    def __init__(self, problems: List[str]) -> None:
        self.problems = problems
        super().__init__(f'variables must fit the model, got {len(problems)} differences:\n  ' + '\n  '.join(problems))


def state_dict_from_tf(variables: Mapping[str, np.ndarray], model: AssembleResNet) -> Dict[str, torch.Tensor]:
    """Return a state dict of ``model`` from the official implementation's variables.

    Every variable is used exactly once and every entry is filled. If the classifier has one class more than the
    model, its first one is dropped, the official "background". Each array is read once and in turn, so that a mapping
    which reads from a file holds one at a time.

    Args:
        variables: ``{official variable name: array}``, TensorFlow layout, without optimizer slots and global_step.
        model: The model to fill. It is not changed and may be on the meta device.

    Returns:
        State dict for ``model.load_state_dict``, in the arrays' dtype.

    Raises:
        MisfitError: Variables are missing, not used, of another shape, not finite, or negative variances. It is a
            ValueError whose message lists them all.
    """
    names = tf_names(model)
    state: Dict[str, torch.Tensor] = {}
    problems, background = [], []
    for entry, target in model.state_dict().items():
        if entry.endswith('num_batches_tracked'):
            state[entry] = torch.zeros_like(target, device='cpu')
            continue
        name = names.get(entry, 'not in the official networks')
        if name not in variables:
            problems.append(f'missing: {name} (for {entry}, shape {tuple(target.shape)})')
            continue
        array = _to_torch(np.asarray(variables[name]))
        if entry.startswith('fc.') and array.ndim == target.ndim and array.shape[0] == target.shape[0] + 1:
            array = array[1:]
            background.append(name)
        if array.shape != tuple(target.shape):
            problems.append(f'shape: {name} is {tuple(array.shape)} in PyTorch order, {entry} {tuple(target.shape)}')
            continue
        state[entry] = torch.from_numpy(np.array(array, order='C'))  # a contiguous, writable copy
        try:
            check_weights({entry: state[entry]}, name)
        except ValueError as e:
            problems.append(str(e))
    if len(background) == 1:  # of kernel and bias
        problems.append(f'shape: {background[0]} has one class more than the other of dense/kernel and dense/bias')
    problems += [f'not used: {name}' for name in sorted(set(variables) - set(names.values()))]
    if problems:
        raise MisfitError(problems)
    return state
