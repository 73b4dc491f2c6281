"""What is asked of a framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Lacking(Exception):  # noqa: N818
    """A framework has no such form of a call."""


@dataclass(frozen=True)
class Call:
    """How a framework spells a call.

    Attributes:
        spelling: its own name for it: ``jax.numpy.clip``.
        function: takes the tensors of a probe, and its settings by name; raises Lacking for a form
            that the framework does not have.
    """

    spelling: str
    function: Callable[..., Any]


@dataclass(frozen=True)
class Way:
    """How a probe is measured.

    Attributes:
        dtype: of the tensors.
        compiled: whether the framework's compiler has the function.
        layout: of the tensors in memory.
    """

    dtype: str = "float64"
    compiled: bool = False
    layout: str = "contiguous"


class Adapter(ABC):
    """A framework.

    Attributes:
        package: the distribution that has its version.
        install: what brings it, and whatever else it needs.
        dtypes: the types that it computes in here; the first is what the others are compared with.
        compiler: what compiles a function; empty if nothing does.
        layouts: of tensors in memory; the first is the usual one.
        calls: what it has, by the call of a probe.
    """

    package: ClassVar[str]
    install: ClassVar[str] = "pip install numpy {package}=={version}"
    dtypes: ClassVar[tuple[str, ...]] = ("float64", "float32", "float16", "bfloat16")
    compiler: ClassVar[str] = ""
    layouts: ClassVar[tuple[str, ...]] = ("contiguous",)
    calls: ClassVar[dict[str, Call]]

    @abstractmethod
    def differentiate(
        self, function: Callable[..., list[Any]], inputs: Sequence[Array], way: Way
    ) -> tuple[list[float], list[Array]]:
        """The numbers that a function returns, and the gradient of their sum.

        Args:
            function: takes tensors of the framework, and returns tensors of one number each.
            inputs: its arguments.
            way: in which type, compiled or not, in which layout.
        """

    def entry(self, output: Any, place: int) -> Any:
        """One entry of a tensor, counted row by row."""
        return output.reshape(-1)[place]
