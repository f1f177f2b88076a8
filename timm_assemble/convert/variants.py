"""Inference of the model and its arguments from names and shapes of a checkpoint's variables."""
import re
from collections import Counter
from functools import cache
from statistics import median
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import timm

from ..errors import UserError, error_line
from ..models.validation import check_model_args
from ..recipes.paper import TECHNIQUES
from .tf_names import BATCH_NORM_LEAVES, PREFIX, tf_shapes

__all__ = ['Architecture', 'Variant', 'infer_variant', 'read_architecture']

Shapes = Mapping[str, Sequence[int]]

IMAGENET_WITH_BACKGROUND = 1001
CONVOLUTION = r'conv2d(_\d+)?/kernel'


class Architecture(NamedTuple):
    """Architecture inferred from the variables, named as the arguments of ``AssembleResNet``."""

    layers: Tuple[int, ...]
    in_chans: int
    width: int
    deep_stem: bool
    attn: Optional[str]
    alpha: int  # 0 without Big-Little
    little: Tuple[int, ...]  # blocks of the little branches of stages 1 to 3, () without Big-Little
    embedding_size: int
    num_classes: int

    @property
    def beta(self) -> Optional[int]:
        """Beta that gives little branches of this depth, or None; 4 and 2 come first."""
        return next((beta for beta in (4, 2, *range(1, max(4, *self.layers[:3]) + 2)) if all(
            n == max(1, depth // beta - 1) for n, depth in zip(self.little, self.layers))), None)

    def __str__(self) -> str:
        big_little = f'Big-Little with alpha {self.alpha} and little branches of {self.little} blocks'
        parts = [
            'deep stem' if self.deep_stem else '7x7 stem', f'width {self.width}', f'{self.layers} blocks',
            big_little if self.alpha else 'no Big-Little', f'attention {self.attn or "none"}',
            f'embedding {self.embedding_size}' if self.embedding_size else 'no embedding',
            f'{self.num_classes} classes']
        return ', '.join(parts)


class Variant(NamedTuple):
    """A model for ``timm.create_model(name, **model_args)``."""

    name: str
    model_args: Dict[str, Any]  # only what differs from the registered model
    inferred: Architecture


def _most(votes: Iterable[int]) -> int:
    """Return the most common value, so that one wrong variable does not decide; 0 for none."""
    counts = Counter(votes).most_common(1)
    return counts[0][0] if counts else 0


def _count(names: Mapping[str, Any], scope: str) -> int:
    """Count the convolutions directly in a scope."""
    return sum(bool(re.fullmatch(scope + CONVOLUTION, name)) for name in names)


def _plain_layers(names: Mapping[str, Tuple[int, ...]], width: int) -> Tuple[int, ...]:
    """Return the blocks of each stage without Big-Little, counted by the shapes of their three convolutions."""
    kernels = Counter(shape for name, shape in names.items() if re.fullmatch(CONVOLUTION, name))
    layers = []
    for s in range(4):
        f = width * 2 ** s
        reduce = sum(kernels[1, 1, c, f] for c in {4 * f, width if s == 0 else 2 * f})
        expand = kernels[1, 1, f, 4 * f] - (s == 0)  # stage 1's shortcut has the same shape
        layers.append(round(median((reduce, kernels[3, 3, f, f] + kernels[3, 3, f, 2 * f], expand))))
    return tuple(layers)


def read_architecture(shapes: Shapes) -> Architecture:
    """Infer the architecture of a network from its variables.

    Each property is decided by the majority of several variables. So a single wrong variable does not change it, and
    :func:`state_dict_from_tf` can name that variable.

    Args:
        shapes: ``{official variable name: shape}``, TensorFlow layout, without optimizer slots.

    Raises:
        UserError: The variables fit no variant.
    """
    names = {name[len(PREFIX):]: tuple(shape) for name, shape in shapes.items() if name.startswith(PREFIX)}
    if not names:
        raise UserError(f'shapes must have names that start with {PREFIX!r}, got {sorted(shapes)[:3]}')

    def dims(*wanted: Tuple[str, int]) -> List[int]:
        """Return one dimension of each variable that exists."""
        return [names[n][d] for n, d in wanted if n in names and len(names[n]) > max(d, -d - 1)]

    big_little = any(re.match(r'stage[123]/', name) for name in names)
    stem = 'stage0/' if big_little else ''
    kernel = names.get(f'{stem}conv2d/kernel', ())
    if len(kernel) != 4 or kernel[:2] not in ((3, 3), (7, 7)):
        raise UserError(f"shapes must have the stem's 7x7 or 3x3 convolution {PREFIX}{stem}conv2d/kernel, "
                         f'got {f"shape {kernel}" if kernel else "no such variable"}')
    deep = kernel[0] == 3
    norm = 'stage0_1/batch_normalization' if big_little else 'batch_normalization' + ('_2' if deep else '')
    width = _most([kernel[3] * (2 if deep else 1), *dims(*((f'{norm}/{x}', 0) for x in BATCH_NORM_LEAVES.values()))])

    alpha = 0
    little: Tuple[int, ...] = ()
    if big_little:
        blocks = [round((_count(names, f'stage{s}/big{s}/') - 1) / 3) + 1 for s in (1, 2, 3)]
        layers = (*blocks, round((_count(names, 'stage4/') - 1) / 3))
        little = tuple(round((_count(names, f'stage{s}/little{s}/') - 2) / 3) for s in (1, 2, 3))
        pool = 'stage0/pool/'
        thin = _most(dims(
            (f'{pool}conv2d_1/kernel', 3), (f'{pool}conv2d_2/kernel', 2), (f'{pool}conv2d_2/kernel', 3),
            (f'{pool}conv2d_3/kernel', 2), (f'{pool}batch_normalization_1/gamma', 0),
            (f'{pool}batch_normalization_2/gamma', 0)))
        alpha = width // thin if thin and width % thin == 0 else -1
    else:
        layers = _plain_layers(names, width)

    attn = [kind for kind, leaf in (('sk', 'sk_fc_1/kernel'), ('se', 'seblock_dense_1/kernel'))
            if 2 * sum(name.endswith('/' + leaf) for name in names) >= max(1, sum(layers))]
    classes = _most(dims(('dense/kernel', 1), ('dense/bias', 0)))
    embedding = _most(dims(('embedding_dense/kernel', -1), *(
        (f'embedding_dense_batch_normalization/{x}', 0) for x in BATCH_NORM_LEAVES.values())))
    inferred = Architecture(
        layers, kernel[2], width, deep, attn[0] if attn else None, alpha, little, embedding, classes)
    rules = {
        'stages of 1 block or more (2 in the first three with Big-Little)': min(layers) > 0 and (
            not big_little or min(layers[:3]) > 1),
        'a width that is a positive multiple of 8': width > 0 and width % 8 == 0,
        'alpha 1, 2, 4 or 8': alpha in ((1, 2, 4, 8) if big_little else (0,)),
        'one beta for all little branches': not big_little or bool(inferred.beta),
        'at most one kind of attention': len(attn) < 2,
        'a classifier, dense/kernel': classes > 0,
    }
    for rule, holds in rules.items():
        if not holds:
            raise UserError(f'shapes must have {rule}, inferred: {inferred}')
    return inferred


@cache
def _registered(name: str) -> Architecture:
    """Return the architecture of a registered model."""
    model: Any = timm.create_model(name, device='meta')
    return read_architecture(tf_shapes(model))


def _distance(arch: Architecture, other: Architecture) -> int:
    """Return how much differs; 0 if only width, embedding and classes do."""
    return (16 * (bool(arch.alpha) != bool(other.alpha)) + 8 * (arch.deep_stem != other.deep_stem)
            + 4 * (arch.attn != other.attn) + 2 * (arch.alpha != other.alpha) + (arch.layers != other.layers)
            + (arch.little != other.little))


def _changes(arch: Architecture, other: Architecture) -> Dict[str, Any]:
    """Return the constructor arguments that turn a registered model into the inferred one."""
    args: Dict[str, Any] = {}
    for name in ('layers', 'in_chans', 'width', 'deep_stem', 'embedding_size', 'num_classes'):
        if getattr(arch, name) != getattr(other, name):
            args[name] = getattr(arch, name)
    if arch.attn != other.attn:
        args['attn'] = arch.attn or ''
    if (arch.alpha, arch.little, arch.layers) != (other.alpha, other.little, other.layers) and (
            arch.alpha or other.alpha):
        args['big_little'] = (arch.alpha, arch.beta) if arch.alpha else ()
    if (arch.deep_stem, bool(arch.alpha)) != (other.deep_stem, bool(other.alpha)):
        args['shortcut'] = 'd' if arch.deep_stem else 'big_little' if arch.alpha else 'plain'
    return args


def _check_given(name: str, args: Mapping[str, Any], inferred: Architecture) -> None:
    """Check that a model with these arguments can be built, and that its variables are those of the checkpoint."""
    try:
        check_model_args(name, {key: value for key, value in args.items() if value is not None})
        built = read_architecture(tf_shapes(timm.create_model(name, device='meta', **args)))  # type: ignore[arg-type]
    except Exception as e:  # building raises any kind
        raise UserError(f'model_args must be arguments of {name}: {error_line(e)}') from e
    pooled = args.get('global_pool') != ''  # as the classifier needs it
    classes = inferred.num_classes - built.num_classes in (0, 1)
    if not (pooled and classes and built._replace(num_classes=inferred.num_classes) == inferred):
        raise UserError(f'model_args must fit the checkpoint, got {dict(args)}, inferred: {inferred}')


def infer_variant(
        shapes: Shapes,
        name: Optional[str] = None,
        model_args: Optional[Mapping[str, Any]] = None,
        keep_classes: bool = False,
) -> Variant:
    """Infer the registered model nearest to a checkpoint, and the arguments that make it the checkpoint's network.

    Anti-aliasing, pooling, the last stride and the shortcuts have no variables. They are the nearest model's, unless
    ``model_args`` has them; only with another stem than the nearest model's the shortcut follows the stem.

    Args:
        shapes: ``{official variable name: shape}``, TensorFlow layout, without optimizer slots.
        name: Registered model instead of the nearest. Depth, stem, attention and Big-Little must be the checkpoint's.
        model_args: Constructor arguments that must not contradict the variables.
        keep_classes: Keep 1001 classes. By default they become 1000, without "background".

    Raises:
        UserError: The variables fit no variant, or not ``name`` or ``model_args``.
    """
    inferred, given = read_architecture(shapes), dict(model_args or {})
    if name is None:  # of equally near ones the shortest: only anti-aliasing, without variables, may tell them apart
        name = min(TECHNIQUES, key=lambda n: (_distance(inferred, _registered(n)), len(n)))
    elif name not in timm.list_models(module='assemble_resnet'):
        raise UserError(f'name must be one of {timm.list_models(module="assemble_resnet")}, got {name!r}')
    else:
        free = ('in_chans', 'width', 'embedding_size', 'num_classes', 'shortcut', *given)
        other = [key for key in _changes(inferred, _registered(name)) if key not in free]
        if other:
            raise UserError(f'name must fit the checkpoint, got {name} and other {other}, inferred: {inferred}')
    args = {**_changes(inferred, _registered(name)), **given}
    if given:
        _check_given(name, args, inferred)
    if inferred.num_classes == IMAGENET_WITH_BACKGROUND and not keep_classes:
        args['num_classes'] = given.get('num_classes', inferred.num_classes - 1)
    if args.get('num_classes') == _registered(name).num_classes:
        del args['num_classes']
    return Variant(name, args, inferred)
