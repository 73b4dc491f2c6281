"""A user's own network, named on the command line or in a spec."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING

from kinkcheck.errors import InputError
from kinkcheck.named import load_named

if TYPE_CHECKING:
    from torch import nn


def load_factory(text: str, folder: Path = Path()) -> Callable[[], nn.Module]:
    """The function that ``package.module:factory`` or ``path/to/file.py:factory`` names.

    Args:
        text: where to find a function without arguments that returns a network.
        folder: from which the path of a file is told.

    Raises:
        InputError: it is not there, or is no function; see :func:`kinkcheck.named.load_named`.

    >>> load_factory("torch.nn:Identity")()
    Identity()
    """
    factory = load_named(text, "network", folder)
    from torch import nn  # seconds, which a wrong name need not wait for

    if not callable(factory) or isinstance(factory, nn.Module):
        raise InputError(
            f"network: {text} must be a function without arguments that returns a network, "
            f"not {type(factory).__name__}"
        )
    return factory  # type: ignore[no-any-return]


class Named:
    """A factory that another process gets by its name, whatever it is made of.

    It is :func:`load_factory`'s; to pickle it is to say where it is, and another process imports it
    from there, in the same current folder.

    Args:
        text: where to find it.

    >>> import pickle
    >>> pickle.loads(pickle.dumps(Named("torch.nn:Identity")))()
    Identity()
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._factory = load_factory(text)
        update_wrapper(self, self._factory)

    def __call__(self) -> nn.Module:
        """What the factory returns."""
        return self._factory()

    def __reduce__(self) -> tuple[type[Named], tuple[str]]:
        """Its name."""
        return Named, (self._text,)
