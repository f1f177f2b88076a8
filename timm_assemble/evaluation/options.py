"""Options of an evaluation, declared once: a function's signature and documentation, and a parser, are made of them.

An evaluation declares a dataclass that derives from :class:`Options`, whose annotations have an :class:`Option`.
"""
import functools
import inspect
import textwrap
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import (
    Annotated, Any, Callable, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Type, Union, get_args,
    get_type_hints,
)

import torch

from ..data.preprocessing import size_of
from ..errors import UserError, check, check_integer, error_line, install_extra

__all__ = ['Option', 'Options', 'PathLike', 'check_packages', 'declared', 'with_options']

PathLike = Union[str, Path]


@dataclass(frozen=True)
class Option:
    """About a field of options, in its annotation.

    Attributes:
        help: Documentation. Other parameters are between backticks.
        metavar: What the command line's help calls the value.
        minimum: Least number.
        choices: Allowed values; all if empty.
        public: Whether the command line has it.
        group: Title of the help's section.
    """

    help: str
    metavar: Optional[str] = None
    minimum: Optional[int] = None
    choices: Tuple[Any, ...] = ()
    public: bool = True
    group: str = ''


class DeclaredOption(NamedTuple):
    """An option as it was declared; ``kind`` is its type without None."""

    name: str
    default: Any
    hint: Any
    kind: Any
    about: Option


@dataclass(kw_only=True)
class Options:
    """What all evaluations take; values are checked, and paths and sizes converted, when it is made."""

    input_size: Annotated[Optional[Tuple[int, int]], Option('Height and width of the input.')] = None
    output: Annotated[Optional[Path], Option(
        'Folder for the results and the cache. The same call continues where it stopped; results of another '
        'measurement are never overwritten. Without it nothing is written, and nothing is cached.',
        metavar='DIR')] = None
    cache: Annotated[Optional[Path], Option(
        'Folder of the cache, which several outputs may share; `cache` in `output` if not given.',
        metavar='DIR')] = None
    identities: Annotated[Optional[Mapping[str, str]], Option(
        "Label of a callable to a text that says which weights it has: a checkpoint's checksum, for example. "
        '`output` requires it, because a cached result is reused for the same identity.', public=False)] = None
    batch_size: Annotated[int, Option('Images per batch.', metavar='N', minimum=1)] = 64
    workers: Annotated[int, Option('Processes that read images; they change no metric.', metavar='N', minimum=0)] = 0
    device: Annotated[Union[str, torch.device, None], Option(
        'Where the models run; CUDA if there is one, else the CPU, if not given.')] = None
    amp: Annotated[bool, Option('Mixed precision for models by name: float16 on CUDA, else bfloat16.')] = False
    progress: Annotated[bool, Option('Show a progress bar.', public=False)] = False
    command: Annotated[str, Option('What results.json says was called.', public=False)] = ''

    def __post_init__(self) -> None:
        for name, _, _, kind, about in declared(type(self)):
            value = getattr(self, name)
            if value is None:
                continue
            if name == 'input_size':
                value = size_of(value)
            elif kind is int:
                value = check_integer(value, name, about.minimum)
            elif get_args(kind)[:1] == (int,):
                values = value if isinstance(value, Iterable) else [value]
                value = [check_integer(n, name, about.minimum or 1) for n in values]
            elif kind is Path:
                check(value != '', name, value, 'a path')
                value = Path(value)
            check(not about.choices or value in about.choices, name, value,
                  f'one of {", ".join(map(str, about.choices))}')
            check(about.minimum is None or kind is int or value >= about.minimum, name, value,
                  f'{about.minimum} or more')
            setattr(self, name, value)
        if self.cache and not self.output:
            raise UserError('cache needs `output`: without it nothing is cached')


def declared(options: Type[Options]) -> List[DeclaredOption]:
    """Return an evaluation's own options, then those of all evaluations."""
    shared = [f.name for f in fields(Options) if f.name != 'input_size']
    found = []
    for f in sorted(fields(options), key=lambda f: f.name in shared):
        hint, about = get_args(get_type_hints(options, include_extras=True)[f.name])
        kind = get_args(hint)[0] if type(None) in get_args(hint) else hint
        found.append(DeclaredOption(f.name, None if f.default is MISSING else f.default, hint, kind, about))
    return found


def with_options(options: Type[Options]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the decorator of a function whose last parameter is ``options``: its callers pass them as keywords.

    ``{options}`` in the function's docstring becomes their documentation. An unknown keyword is a TypeError.
    """
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = [*inspect.signature(function).parameters.values()][:-1]
        keywords = [inspect.Parameter(o.name, inspect.Parameter.KEYWORD_ONLY, default=o.default, annotation=o.hint)
                    for o in declared(options)]
        signature = inspect.Signature(own + keywords, return_annotation=inspect.signature(function).return_annotation)

        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            arguments = signature.bind(*args, **given).arguments
            positional = {p.name: arguments.pop(p.name, p.default) for p in own}
            arguments.setdefault('command', f'{function.__module__.rpartition(".")[0]}.{function.__name__}')
            return function(**positional, options=options(**arguments))
        texts = [f'{o.name}: {o.about.help}'.replace('`', '``').replace('*', '\\*') for o in declared(options)]
        lines = [textwrap.fill(text, 116, initial_indent=' ' * 8,
                               subsequent_indent=' ' * 12, break_on_hyphens=False) for text in texts]
        call.__signature__ = signature  # type: ignore[attr-defined]
        del call.__wrapped__  # whose parameters are others
        call.__doc__ = (function.__doc__ or '').replace('{options}', '\n'.join(lines).lstrip())
        return call
    return decorate


def check_packages(extra: str, *packages: str) -> None:
    """Check that packages can be imported; the error names the ``extra`` that installs them."""
    for package in packages:
        try:
            import_module(package)
        except ModuleNotFoundError as e:
            raise UserError(f'{extra} needs {e.name}: {install_extra(extra)}') from e
        except ImportError as e:  # OpenCV without a system's graphics library, say
            raise UserError(f'{extra} cannot import {package}: {error_line(e)}') from e
