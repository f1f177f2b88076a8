"""Which model a checkpoint is of, told from the names and shapes of its variables alone.

Needs neither TensorFlow nor any value of a variable. Knows timm's registry, the model's arguments and the name table.
"""
import inspect
import re
from collections import Counter
from functools import cache
from statistics import median
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import timm

from ..models.assemble_resnet import AssembleResNet
from .tf_names import BATCH_NORM_LEAVES, PREFIX, tf_names

__all__ = ['Architecture', 'Variant', 'infer_variant', 'read_architecture']

Shapes = Mapping[str, Sequence[int]]

# Of two equally near, the first: assemble_resnet50 and assemble_resnet50_bl_sk differ in the anti-aliasing alone, which
# has no variables.
PUBLISHED = (
    'assemble_resnet50', 'assemble_resnet152', 'assemble_resnet101', 'assemble_resnet50_bl_sk', 'assemble_resnet50_bl',
    'assemble_resnet50_d_sk', 'assemble_resnet50_d_se', 'assemble_resnet50_d', 'assemble_resnet50_base',
)
IMAGENET_WITH_BACKGROUND = 1001
CONVOLUTION = r'conv2d(_\d+)?/kernel'
ARGUMENTS = tuple(n for n in inspect.signature(AssembleResNet).parameters if n not in ('device', 'dtype'))


class Architecture(NamedTuple):
    """What the variables of a network show."""

    layers: Tuple[int, ...]  # blocks of the four stages
    in_chans: int
    width: int
    deep_stem: bool
    attn: Optional[str]
    alpha: int  # 0 without Big-Little
    little: Tuple[int, ...]  # blocks of the little branches of stages 1 to 3, () without Big-Little
    embedding_size: int
    num_classes: int

    def fits_beta(self, beta: int) -> bool:
        """Whether this beta gives little branches of this depth; where they are of one block, any large one does."""
        return beta > 0 and all(n == max(1, depth // beta - 1) for n, depth in zip(self.little, self.layers))

    @property
    def betas(self) -> List[int]:
        """The betas that give little branches of this depth; the usual ones first."""
        fitting = [b for b in range(1, max(4, *self.layers[:3]) + 2) if self.fits_beta(b)]
        return sorted(fitting, key=lambda b: (b not in (2, 4), -b if b in (2, 4) else b))

    def __str__(self) -> str:
        big_little = f'Big-Little with alpha {self.alpha} and little branches of {self.little} blocks'
        parts = [
            'deep stem' if self.deep_stem else '7x7 stem', f'width {self.width}', f'{self.layers} blocks',
            big_little if self.alpha else 'no Big-Little', f'attention {self.attn or "none"}',
            f'embedding {self.embedding_size}' if self.embedding_size else 'no embedding',
            f'{self.num_classes} classes']
        return ', '.join(parts)


class Variant(NamedTuple):
    """A model to make with ``timm.create_model(name, **model_args)``."""

    name: str
    model_args: Dict[str, Any]  # only what differs from the registered model's
    seen: Architecture


def _most(votes: Iterable[int]) -> int:
    """The value that most have, the first of equals, 0 for none: so that one wrong variable does not decide."""
    counts = Counter(votes).most_common(1)
    return counts[0][0] if counts else 0


def _count(names: Mapping[str, Any], scope: str) -> int:
    """Convolutions that are made directly in a scope."""
    return sum(bool(re.fullmatch(scope + CONVOLUTION, name)) for name in names)


def _plain_layers(names: Mapping[str, Tuple[int, ...]], width: int) -> Tuple[int, ...]:
    """Blocks of each stage where all lie in one scope: counted by the shapes of their three convolutions."""
    kernels = Counter(shape for name, shape in names.items() if re.fullmatch(CONVOLUTION, name))
    layers = []
    for s in range(4):
        f = width * 2 ** s
        reduce = sum(kernels[1, 1, c, f] for c in {4 * f, width if s == 0 else 2 * f})
        expand = kernels[1, 1, f, 4 * f] - (s == 0)  # stage 1's shortcut has the same shape
        layers.append(round(median((reduce, kernels[3, 3, f, f] + kernels[3, 3, f, 2 * f], expand))))
    return tuple(layers)


def read_architecture(shapes: Shapes) -> Architecture:
    """Depth, width, stem, attention, Big-Little, embedding and classes of a network.

    Read from many variables each and by majority: where a single one is amiss the answer stays, and the strict
    conversion names it.

    Args:
        shapes: ``{official variable name: shape}``, TensorFlow layout, without optimizer slots.

    Raises:
        ValueError: The variables are of no network of the family; says what was seen.
    """
    names = {name[len(PREFIX):]: tuple(shape) for name, shape in shapes.items() if name.startswith(PREFIX)}
    if not names:
        raise ValueError(f'variables must have names that start with {PREFIX!r}, got {sorted(shapes)[:3]}.')

    def dims(*wanted: Tuple[str, int]) -> List[int]:
        """One dimension each of the variables that there are."""
        return [names[n][d] for n, d in wanted if n in names and len(names[n]) > max(d, -d - 1)]

    big_little = any(re.match(r'stage[123]/', name) for name in names)
    stem = 'stage0/' if big_little else ''
    kernel = names.get(f'{stem}conv2d/kernel', ())
    if len(kernel) != 4 or kernel[:2] not in ((3, 3), (7, 7)):
        raise ValueError(f"{PREFIX}{stem}conv2d/kernel must be the stem's 7x7 or 3x3 convolution, "
                         f'got {f"shape {kernel}" if kernel else "no such variable"}.')
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
    seen = Architecture(
        layers, kernel[2], width, deep, attn[0] if attn else None, alpha, little, embedding, classes)
    rules = {
        'stages of 1 block or more (2 in the first three with Big-Little)': min(layers) > 0 and (
            not big_little or min(layers[:3]) > 1),
        'a width that is a positive multiple of 8': width > 0 and width % 8 == 0,
        'alpha 1, 2, 4 or 8': alpha in ((1, 2, 4, 8) if big_little else (0,)),
        'one beta for all little branches': not big_little or bool(seen.betas),
        'one kind of attention': len(attn) < 2,
        'a classifier, dense/kernel': classes > 0,
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(f'the variables fit no variant: {rule} must be there, seen: {seen}.')
    return seen


@cache
def _registered(name: str) -> Architecture:
    """What the variables of a registered model would show."""
    model = timm.create_model(name, device='meta')
    entries = model.state_dict()
    shapes = {}
    for entry, variable in tf_names(model).items():  # type: ignore[arg-type]
        shape = tuple(entries[entry].shape)
        shapes[variable] = (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape[::-1]
    return read_architecture(shapes)


def _distance(seen: Architecture, other: Architecture) -> int:
    """How much has to be changed; 0 where only width, embedding and classes differ."""
    return (16 * (bool(seen.alpha) != bool(other.alpha)) + 8 * (seen.deep_stem != other.deep_stem)
            + 4 * (seen.attn != other.attn) + 2 * (seen.alpha != other.alpha) + (seen.layers != other.layers)
            + (seen.little != other.little))


def _changes(seen: Architecture, other: Architecture) -> Dict[str, Any]:
    """Constructor arguments that make what is seen of a registered model."""
    args: Dict[str, Any] = {}
    for name in ('layers', 'in_chans', 'width', 'deep_stem', 'embedding_size', 'num_classes'):
        if getattr(seen, name) != getattr(other, name):
            args[name] = getattr(seen, name)
    if seen.attn != other.attn:
        args['attn'] = seen.attn or ''
    if (seen.alpha, seen.little, seen.layers) != (other.alpha, other.little, other.layers) and (
            seen.alpha or other.alpha):
        args['big_little'] = (seen.alpha, seen.betas[0]) if seen.alpha else ()
    if (seen.deep_stem, bool(seen.alpha)) != (other.deep_stem, bool(other.alpha)):
        args['shortcut'] = 'd' if seen.deep_stem else 'big_little' if seen.alpha else 'plain'
    return args


def _agrees(name: str, value: Any, seen: Architecture) -> bool:
    """Whether a value given for an argument is one that the variables allow."""
    if name == 'big_little':
        return (len(value) == 2 and value[0] == seen.alpha and seen.fits_beta(value[1])) if value else not seen.alpha
    if name == 'attn':
        return (value or None) == seen.attn
    if name == 'num_classes':
        return value in (seen.num_classes, seen.num_classes - 1)
    if name == 'layers':
        return tuple(value) == seen.layers
    return name not in seen._fields or value == getattr(seen, name)


def infer_variant(
        shapes: Shapes,
        name: Optional[str] = None,
        model_args: Optional[Mapping[str, Any]] = None,
        keep_classes: bool = False,
) -> Variant:
    """The registered model that is nearest to a checkpoint, and the arguments that make it the checkpoint's network.

    Anti-aliasing, pooling, the last stride and the shortcuts have no variables: they are the nearest model's, but for
    the shortcut where the stem is another than that model's (D with a deep stem), unless ``model_args`` say otherwise.

    Args:
        shapes: ``{official variable name: shape}``, TensorFlow layout, without optimizer slots.
        name: Registered model to take in place of the nearest; it must have the checkpoint's depth, stem, attention
            and Big-Little.
        model_args: Arguments that go before all others; they may not contradict the variables.
        keep_classes: Whether 1001 classes stay 1001, and do not become the 1000 without "background".

    Raises:
        ValueError: The variables fit no variant, or not the model or the arguments given.
    """
    seen, given = read_architecture(shapes), dict(model_args or {})
    for key, value in given.items():
        if key not in ARGUMENTS:
            raise ValueError(f'model_args must have names from {ARGUMENTS}, got {key!r}.')
        try:
            agrees = _agrees(key, value, seen)
        except TypeError:
            agrees = False
        if not agrees:
            raise ValueError(f'model_args: {key} must agree with the variables, got {value!r}, seen: {seen}.')
    if name is None:
        name = min(PUBLISHED, key=lambda n: _distance(seen, _registered(n)))
    elif name not in timm.list_models(module='assemble_resnet'):
        raise ValueError(f'model must be one of {timm.list_models(module="assemble_resnet")}, got {name!r}.')
    else:
        free = ('in_chans', 'width', 'embedding_size', 'num_classes', 'shortcut', *given)
        other = [key for key in _changes(seen, _registered(name)) if key not in free]
        if other:
            raise ValueError(f'model {name} differs from the variables in {other}, seen: {seen}.')
    if seen.num_classes == IMAGENET_WITH_BACKGROUND and not keep_classes:
        given.setdefault('num_classes', seen.num_classes - 1)
    args = {**_changes(seen, _registered(name)), **given}
    if args.get('num_classes') == _registered(name).num_classes:
        del args['num_classes']
    return Variant(name, args, seen)
