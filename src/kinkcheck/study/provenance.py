"""Where a result was computed: versions, commit, machine, flags."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch

from kinkcheck import kernels
from kinkcheck.errors import InputError
from kinkcheck.study.determinism import flags


@dataclass(frozen=True)
class Provenance:
    """What was in use when a trial was trained.

    Attributes:
        kinkcheck: version of the package.
        commit: of the checkout that it runs from; None if it does not run from one.
        clean: whether that checkout had no changes; None likewise.
        torch: version of PyTorch.
        python: version of Python.
        platform: operating system and processor architecture.
        device: as given, such as ``cuda:1``.
        device_name: what it is.
        kernels: which kernels of max pooling are in use.
        threads: of the CPU.
        flags: determinism flags of PyTorch, as ``name=value`` separated by spaces.
    """

    kinkcheck: str
    commit: str | None
    clean: bool | None
    torch: str
    python: str
    platform: str
    device: str
    device_name: str
    kernels: str
    threads: int
    flags: str


def provenance(device: str, threads: int) -> Provenance:
    """What is in use now.

    >>> provenance("cpu", 1).torch == torch.__version__
    True
    """
    commit, clean = _checkout()
    return Provenance(
        kinkcheck=version("kinkcheck"),
        commit=commit,
        clean=clean,
        torch=str(torch.__version__),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        device=device,
        device_name=_device_name(device),
        kernels=_kernels(),
        threads=threads,
        flags=" ".join(f"{name}={value}" for name, value in flags(device).items()),
    )


def _device_name(device: str) -> str:
    kind = torch.device(device)
    if kind.type == "cuda":
        return torch.cuda.get_device_name(kind)
    return _processor() if kind.type == "cpu" else kind.type


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _kernels() -> str:
    try:
        return str(kernels.in_use())
    except InputError as error:
        return str(error)


@lru_cache(maxsize=1)
def _checkout() -> tuple[str | None, bool | None]:
    """The commit of the checkout that this file lies in, and whether it has no changes."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        # An installed copy may lie below somebody else's checkout.
        if not git("ls-files", "--", Path(__file__).name):
            return None, None
        return git("rev-parse", "HEAD"), not git("status", "--porcelain", "--", str(here.parent))
    except (OSError, subprocess.CalledProcessError):
        return None, None
