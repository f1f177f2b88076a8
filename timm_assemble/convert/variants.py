"""The model of a checkpoint, from names and shapes of its variables."""
import re
from functools import cache
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import timm

from ..errors import UserError, check, error_line
from ..models.validation import check_model_args
from ..recipes.paper import TECHNIQUES
from .tf_names import PREFIX, tf_names, tf_shapes

__all__ = ['Architecture', 'Variant', 'infer_variant', 'read_architecture']

Shapes = Mapping[str, Sequence[int]]

IMAGENET_WITH_BACKGROUND = 1001


class Architecture(NamedTuple):
    """Architecture that the variables say, named as the arguments of ``AssembleResNet``."""

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
    def beta(self) -> int:
        """Beta that gives little branches of this depth, 0 for none; 4 and 2 come first."""
        return next((beta for beta in (4, 2, *range(1, max(4, *self.layers[:3]) + 2)) if all(
            n == max(1, depth // beta - 1) for n, depth in zip(self.little, self.layers))), 0)

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


def read_architecture(shapes: Shapes) -> Architecture:
    """Return the architecture of the network that variables are of.

    Args:
        shapes: ``{official variable name: shape}``, TensorFlow layout, without optimizer slots.

    Raises:
        UserError: They have no stem or no classifier.
    """
    names = {name[len(PREFIX):]: tuple(shape) for name, shape in shapes.items() if name.startswith(PREFIX)}

    def dim(name: str, axis: int) -> int:
        return names[name][axis] if len(names.get(name, ())) > max(axis, 0) else 0

    def convolutions(scope: str) -> Dict[str, Tuple[int, ...]]:
        return {name: s for name, s in names.items()
                if re.fullmatch(rf'{scope}conv2d(_\d+)?/kernel', name) and len(s) == 4}

    big_little = any(name.startswith(('stage1/', 'stage2/', 'stage3/')) for name in names)
    stem = f'{"stage0/" if big_little else ""}conv2d'
    kernel = names.get(f'{stem}/kernel', ())
    check(len(kernel) == 4 and kernel[:2] in ((3, 3), (7, 7)), 'shapes', kernel or sorted(shapes)[:3],
          f"those of an official network, with the stem's 7x7 or 3x3 {PREFIX}{stem}/kernel")
    check(dim('dense/kernel', 1) > 0, 'shapes', names.get('dense/kernel', 'none'),
          f'those of an official network, with a classifier, {PREFIX}dense/kernel')
    deep_stem = kernel[0] == 3
    width = kernel[3] * (2 if deep_stem else 1)
    alpha = 0
    little: Tuple[int, ...] = ()
    if big_little:
        blocks = [(len(convolutions(f'stage{s}/big{s}/')) + 2) // 3 for s in (1, 2, 3)]
        layers = (*blocks, len(convolutions('stage4/')) // 3)
        little = tuple((len(convolutions(f'stage{s}/little{s}/')) - 2) // 3 for s in (1, 2, 3))
        alpha = width // (dim('stage0/pool/conv2d_1/kernel', 3) or width)
    else:
        of_stem = [f'{stem}/kernel', f'{stem}_1/kernel', f'{stem}_2/kernel'][:3 if deep_stem else 1]
        middle = [s for name, s in convolutions('').items() if name not in of_stem and s[:2] == (3, 3)]
        layers = tuple(sum(s[2] == width * 2 ** i for s in middle) for i in range(4))
    attn = [kind for kind in ('sk', 'se') if any(f'{kind}_block' in name for name in names)]
    return Architecture(layers, kernel[2], width, deep_stem, attn[0] if attn else None, alpha, little,
                        dim('embedding_dense/kernel', -1), dim('dense/kernel', 1))


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


def _sizes(arch: Architecture, other: Architecture) -> Dict[str, Any]:
    """Return the arguments of a registered model that fit any checkpoint, where they differ."""
    names = ('in_chans', 'width', 'embedding_size', 'num_classes')
    return {name: getattr(arch, name) for name in names if getattr(arch, name) != getattr(other, name)}


def _techniques(arch: Architecture, other: Architecture) -> Dict[str, Any]:
    """Return the arguments that turn a registered model into the network of the variables."""
    args: Dict[str, Any] = {
        name: getattr(arch, name) for name in ('layers', 'deep_stem') if getattr(arch, name) != getattr(other, name)}
    if arch.attn != other.attn:
        args['attn'] = arch.attn or ''
    if (arch.alpha, arch.little) != (other.alpha, other.little) or (arch.alpha and 'layers' in args):
        args['big_little'] = (arch.alpha, arch.beta) if arch.alpha else ()
    if (arch.deep_stem, bool(arch.alpha)) != (other.deep_stem, bool(other.alpha)):
        args['shortcut'] = 'd' if arch.deep_stem else 'big_little' if arch.alpha else 'plain'
    return args


def infer_variant(
        shapes: Shapes,
        name: Optional[str] = None,
        model_args: Optional[Mapping[str, Any]] = None,
        keep_classes: bool = False,
) -> Variant:
    """Return the registered model nearest to a checkpoint, and the arguments that make it the checkpoint's network.

    Anti-aliasing, pooling, the last stride and the shortcuts have no variables. They are the nearest model's, unless
    ``model_args`` has them; only with another stem than the nearest model's the shortcut follows the stem. Whether the
    variables fit the model exactly is not known before :func:`~timm_assemble.convert.state_dict_from_tf`.

    Args:
        shapes: ``{official variable name: shape}``, TensorFlow layout, without optimizer slots.
        name: Registered model instead of the nearest: its depth, stem, attention and Big-Little are not inferred.
        model_args: Constructor arguments instead of the inferred ones.
        keep_classes: Keep 1001 classes. By default they become 1000, without "background".

    Raises:
        UserError: The variables are of no network, or no network has ``model_args``.
    """
    inferred, given = read_architecture(shapes), dict(model_args or {})
    if name is None:  # of equally near ones the shortest: only anti-aliasing, without variables, may tell them apart
        name = min(TECHNIQUES, key=lambda n: (_distance(inferred, _registered(n)), len(n)))
        args = _techniques(inferred, _registered(name))
    else:
        registered = timm.list_models(module='assemble_resnet')
        check(name in registered, 'name', name, f'one of {registered}')
        args = {}
    args.update(_sizes(inferred, _registered(name)))
    if inferred.num_classes == IMAGENET_WITH_BACKGROUND and not keep_classes:
        args['num_classes'] = inferred.num_classes - 1
    args.update(given)
    if args.get('num_classes') == _registered(name).num_classes:
        del args['num_classes']
    try:
        check_model_args(name, {key: value for key, value in args.items() if value is not None})
        tf_names(timm.create_model(name, device='meta', **args))  # type: ignore[arg-type]
    except Exception as e:  # arguments of another type raise any kind
        raise UserError(f'model_args must be arguments of {name}, got {args}: {error_line(e)}' if given else
                        f'shapes must be those of an official network, inferred: {inferred}: {error_line(e)}') from e
    return Variant(name, args, inferred)
