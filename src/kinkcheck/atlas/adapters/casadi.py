"""CasADi."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import casadi
import numpy as np

from kinkcheck.atlas.adapters.adapter import Adapter, Array, Call, Lacking, Way

_NORMS = {1.0: casadi.norm_1, 2.0: casadi.norm_2, inf: casadi.norm_inf}


def _norm(x: Any, power: float) -> Any:
    if power not in _NORMS:
        raise Lacking
    return _NORMS[power](x)


class Casadi(Adapter):
    """CasADi's ``MX``."""

    package = "casadi"
    dtypes = ("float64",)

    calls = {  # noqa: RUF012
        "abs": Call("casadi.fabs", casadi.fabs),
        "maximum": Call("casadi.fmax", casadi.fmax),
        "minimum": Call("casadi.fmin", casadi.fmin),
        "max of two": Call("casadi.fmax", casadi.fmax),
        "min of two": Call("casadi.fmin", casadi.fmin),
        "fmax": Call("casadi.fmax", casadi.fmax),
        "fmin": Call("casadi.fmin", casadi.fmin),
        "max of all": Call("casadi.mmax", casadi.mmax),
        "min of all": Call("casadi.mmin", casadi.mmin),
        "amax": Call("casadi.mmax", casadi.mmax),
        "amin": Call("casadi.mmin", casadi.mmin),
        "norm": Call("casadi.norm_1, casadi.norm_2, casadi.norm_inf", _norm),
    }

    def differentiate(
        self, function: Callable[..., list[Any]], inputs: Sequence[Array], way: Way
    ) -> tuple[list[float], list[Array]]:
        """By ``casadi.gradient``."""
        symbols = [casadi.MX.sym(f"x{place}", each.size) for place, each in enumerate(inputs)]
        outputs = function(*symbols)
        total = sum(outputs)
        slopes = [casadi.gradient(total, each) for each in symbols]
        made = casadi.Function("probe", symbols, [*outputs, *slopes])
        found = made.call([casadi.DM(each.ravel()) for each in inputs])
        count = len(outputs)
        return [float(each) for each in found[:count]], [np.array(each) for each in found[count:]]

    def entry(self, output: Any, place: int) -> Any:
        """By its index."""
        return output[place]
