"""The class of a user's mistake."""
import difflib
import importlib.util
import os
from contextlib import contextmanager
from numbers import Integral
from typing import Any, Iterable, Iterator, Optional, Union

__all__ = [
    'INSTALL', 'UserError', 'check', 'check_installed', 'check_integer', 'did_you_mean', 'error_line', 'install_extra',
    'reading']

# How the package is had: in a clone, or from a wheel of `make dist`. It is on no index, and there the name could be
# anyone's. Messages and model cards say this; whoever publishes the package changes it here and in the pages, which a
# test compares with it.
INSTALL = 'pip install .'


class UserError(ValueError):
    """A user's mistake, in one line that names the parameter, what is allowed and the value.

    The command line prints it with the option instead of the parameter, and exits with status 2. Any other exception is
    a bug and shows its traceback.

    Args:
        message: ``'PARAMETER must be ALLOWED, got VALUE'``. Other parameters in it are between backticks.
        parameter: The parameter; the message's first word if None.
    """

    def __init__(self, message: str, parameter: Optional[str] = None) -> None:
        super().__init__(message)
        self.parameter = message.partition(' ')[0] if parameter is None else parameter

    def __reduce__(self) -> Any:
        return _unpickle, (type(self), self.args, self.__dict__)


def _unpickle(kind: type, args: Any, state: Any) -> UserError:
    error = kind.__new__(kind, *args)
    error.args, error.__dict__ = args, state
    return error


def check(ok: bool, parameter: str, value: Any, allowed: str) -> None:
    """Raise UserError unless ``ok``."""
    if not ok:
        raise UserError(f'{parameter} must be {allowed}, got {value!r}')


def check_integer(value: Any, parameter: str, minimum: Optional[int] = None) -> int:
    """Return an integer, also numpy's; raise UserError for anything else, or below ``minimum``."""
    number: Any = value if isinstance(value, Integral) and not isinstance(value, bool) else None
    check(number is not None and (minimum is None or number >= minimum), parameter, value,
          'an integer' if minimum is None else f'an integer of {minimum} or more')
    return int(value)


def install_extra(extra: str) -> str:
    """Return how to install what an extra needs."""
    command, _, package = INSTALL.rpartition(' ')
    return f"{command} '{package}[{extra}]' in a clone of timm_assemble"


def check_installed(what: str, extra: str, *packages: str) -> None:
    """Raise UserError, which begins with ``what``, unless the packages of an extra are installed; imports none."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f'{what} needs {package}: {install_extra(extra)}')


def error_line(error: BaseException) -> str:
    """Return an error's message as one line of at most 500 characters."""
    return ' '.join(str(error).split())[:500] or type(error).__name__


def did_you_mean(word: str, names: Iterable[str], count: int = 1) -> str:
    """Return ``'; did you mean ...?'`` with the nearest names, ``''`` if none is near."""
    near = difflib.get_close_matches(word, list(names), count)
    return f'; did you mean {", ".join(near)}?' if near else ''


@contextmanager
def reading(parameter: str, path: Union[str, os.PathLike]) -> Iterator[None]:
    """Report an error of the operating system on a path that the user gave as the user's."""
    try:
        yield
    except OSError as e:
        raise UserError(f'{parameter} {os.fspath(path)!r} cannot be used: {e.strerror or error_line(e)}') from e
