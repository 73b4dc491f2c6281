"""What kinkcheck finds on this machine: versions, kernels, devices, data."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from kinkcheck import kernels
from kinkcheck.data.source import ENVIRONMENT, found_in
from kinkcheck.errors import InputError
from kinkcheck.kernels import triton

_OPTIONAL = ("triton", "datasets", "pillow", "mlxtend", "python-flint")

_TO_COMPILE = (
    "in a checkout, and with a C++ compiler, make kernels compiles them for its .venv, and "
    "pip install --no-deps . for the environment that is active"
)


def findings(data_dir: Path | None = None) -> list[tuple[str, str]]:
    """What was found, one line each: a heading and a sentence.

    Args:
        data_dir: the folder to look for data sets in; None for the environment variable
            KINKCHECK_DATA_DIR.

    >>> dict(findings())["torch"] == torch.__version__
    True
    """
    return [
        ("kinkcheck", version("kinkcheck")),
        ("python", platform.python_version()),
        ("torch", torch.__version__),
        ("kernels", _kernels()),
        ("on a GPU", triton.obstacle() or "triton"),
        ("devices", ", ".join(["cpu", *_accelerators()])),
        *((package, _installed(package)) for package in _OPTIONAL),
        ("data", _data(data_dir)),
    ]


def _kernels() -> str:
    try:
        found = str(kernels.in_use())
    except InputError as error:
        found = str(error)
    return f"{found}; {_TO_COMPILE}" if kernels.obstacle() else found


def _accelerators() -> list[str]:
    names = [
        f"cuda:{index} ({torch.cuda.get_device_name(index)})"
        for index in range(torch.cuda.device_count())
    ]
    return names + ["mps"] * torch.backends.mps.is_available()


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _data(data_dir: Path | None) -> str:
    folder = data_dir or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if folder is None:
        return f"no folder given ({ENVIRONMENT} is not set); mnist-sample needs none"
    return f"{folder}: {', '.join(found_in(folder)) or 'no data set found'}"
