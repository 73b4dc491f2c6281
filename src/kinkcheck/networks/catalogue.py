"""Which networks and parameter draws there are, by name; known without PyTorch."""

from __future__ import annotations

from kinkcheck.errors import unknown
from kinkcheck.named import require_place

NAMES = (
    "lenet5",
    "vgg9",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "resnet18",
    "resnet34",
    "resnet50",
    "densenet121",
    "densenet121-published",
    "mlp",
    "mlp-2048",
)
"""The names that :func:`kinkcheck.networks.build` accepts."""

INITIALISATIONS = ("default", "kaiming")
"""The names that :func:`kinkcheck.networks.initialise` accepts."""


def require_network(text: str) -> None:
    """Check that a text names a network or says where a user's own is to be found.

    Raises:
        InputError: it does neither; the message says which networks there are.

    >>> require_network("my_nets.py:make")
    >>> require_network("vgg12")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: unknown network 'vgg12'; did you mean 'vgg19'? accepted: ...
    """
    if text not in NAMES and ":" not in text:
        require_place(text, "network")
        places = ("package.module:factory", "path/to/file.py:factory")
        raise unknown("network", text, (*NAMES, *places))


def require_initialisation(init: str) -> None:
    """Check that there is a parameter draw of a name.

    Raises:
        InputError: there is not; the message says which there are.

    >>> require_initialisation("kaiming")
    """
    if init not in INITIALISATIONS:
        raise unknown("init", init, INITIALISATIONS)
