"""The probes, measured in one framework.

Run as ``python -m kinkcheck.atlas.measuring FRAMEWORK FILE`` it writes what it found as JSON. It
needs the framework and NumPy, and nothing else.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from kinkcheck.atlas.adapters.adapter import Adapter, Lacking, Way
from kinkcheck.atlas.clarke import UNITS, lies
from kinkcheck.atlas.probes import PROBES, Probe
from kinkcheck.files import write_whole

Fields = dict[str, Any]
"""What one probe gave: the fields of :class:`kinkcheck.atlas.table.Found`."""


def adapter_of(framework: str) -> Adapter:
    """The adapter of a framework, which is imported.

    Raises:
        ImportError: the framework is not installed.
    """
    module = import_module(f"kinkcheck.atlas.adapters.{framework}")
    made: Adapter = next(
        each()
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Adapter) and each is not Adapter
    )
    return made


def column(framework: str, compiled: bool = True, probes: Sequence[Probe] = PROBES) -> Fields:
    """What a framework returns at every kink: a column of the table.

    Args:
        framework: the name of an adapter.
        compiled: whether to measure what its compiler makes, which takes minutes, too.
        probes: what is measured.

    Raises:
        ImportError: the framework is not installed.
    """
    adapter = adapter_of(framework)
    usual, *others = _ways(adapter, compiled)
    has = [probe for probe in probes if probe.call in adapter.calls]
    found = dict(zip((probe.name for probe in has), _each(adapter, has, usual), strict=True))
    found = {name: each for name, each in found.items() if each}
    has = [probe for probe in has if probe.name in found]
    for way in others:
        suited = [probe for probe in has if way.layout == usual.layout or _is_image(probe)]
        measured = _compiled if way.compiled else _each
        for probe, other in zip(suited, measured(adapter, suited, way), strict=True):
            if way.compiled and not _alike(found[probe.name], other, way.dtype):
                (other,) = _each(adapter, [probe], way)  # not for what was compiled beside it
            departs = {name: each for name, each in asdict(way).items()
                       if each != getattr(usual, name)}  # fmt: skip
            found[probe.name] = _added(found[probe.name], {**departs, **other}, way, usual)
    package, calls = adapter.package, {probe.call: None for probe in has}
    number = version(package).partition("+")[0]
    return {
        "framework": framework,
        "version": number,
        "install": adapter.install.format(package=package, version=number),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "dtypes": list(adapter.dtypes),
        "compiler": adapter.compiler if compiled else "",
        "layouts": list(adapter.layouts),
        "calls": {call: adapter.calls[call].spelling for call in calls},
        "lacks": list(dict.fromkeys(probe.call for probe in probes if probe.call not in calls)),
        "found": found,
    }


def _ways(adapter: Adapter, compiled: bool) -> list[Way]:
    """All that are measured; compiled in float32 only, if the framework has it."""
    usual = adapter.dtypes[0]
    ways = [Way(dtype) for dtype in adapter.dtypes]
    ways += [Way(usual, layout=layout) for layout in adapter.layouts[1:]]
    if compiled and adapter.compiler:
        ways.append(Way("float32", compiled=True))
    return ways


def _added(found: Fields, other: Fields, way: Way, usual: Way) -> Fields:
    """What a probe gave, and what it gave in another way.

    If it failed and the other way is the first that did not, that is what it gave.
    """
    before = found.pop("differs", [])
    if "error" in found and "error" not in other and not way.compiled:
        return {**other, "differs": [{"dtype": usual.dtype, **found}, *before]}
    if not _alike(found, other, way.dtype):
        before = [*before, other]
    return {**found, "differs": before} if before else found


def _compiled(adapter: Adapter, probes: Sequence[Probe], way: Way) -> list[Fields]:
    """One function for all probes of an operation: a compiler takes seconds for each."""
    found: list[Fields] = []
    for _, of_one in groupby(probes, lambda probe: probe.operation):
        together = list(of_one)
        try:
            found += _together(adapter, together, way)
        except Exception:
            found += _each(adapter, together, way)
    return found


def _each(adapter: Adapter, probes: Iterable[Probe], way: Way) -> list[Fields]:
    found: list[Fields] = []
    for probe in probes:
        try:
            found += _together(adapter, [probe], way)
        except Lacking:
            found.append({})
        except Exception as error:
            found.append({"error": _said(error)})
    return found


def _said(error: Exception) -> str:
    """Its kind and first line, without the folders of this machine."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {re.sub(r'(/[^/ ]+)+/', '', first)}"[:160]


def _together(adapter: Adapter, probes: Sequence[Probe], way: Way) -> list[Fields]:
    """One function that makes the calls of some probes; the gradient of the sum has them all."""
    inputs = [np.asarray(each, np.float64) for probe in probes for each in probe.inputs]
    calls = [
        (adapter.calls[probe.call].function, len(probe.inputs), probe.settings, probe.output)
        for probe in probes
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is experimental in a framework
        values, gradients = adapter.differentiate(_joined(calls, adapter.entry), inputs, way)
    found, start = [], 0
    for probe, value in zip(probes, values, strict=True):
        own = gradients[start : start + len(probe.inputs)]
        start += len(probe.inputs)
        found.append(_read(probe, value, own, way.dtype))
    return found


def _joined(
    calls: Sequence[tuple[Callable[..., Any], int, dict[str, Any], int]],
    entry: Callable[[Any, int], Any],
) -> Callable[..., list[Any]]:
    def function(*tensors: Any) -> list[Any]:
        outputs, start = [], 0
        for call, count, settings, place in calls:
            output = call(*tensors[start : start + count], **settings)
            outputs.append(entry(output, place))
            start += count
        return outputs

    return function


def _read(probe: Probe, value: float, gradients: Sequence[Any], dtype: str) -> Fields:
    flat = [np.asarray(each, np.float64).ravel() for each in gradients]
    derivative = [float(flat[input][place]) + 0.0 for input, place in probe.places]
    moves = set(probe.places)
    # What has a slope of its own and is no entry: the slope of a prelu.
    elsewhere = any(
        not abs(each) <= 4 * UNITS[dtype]
        for input, slopes in enumerate(flat)
        for place, each in enumerate(slopes)
        if (input, place) not in moves
    )
    found: Fields = {
        "derivative": [_written(slope) for slope in derivative],
        "lies": list(lies(probe, derivative, dtype, elsewhere)),
    }
    if abs(value - probe.value) > 8 * UNITS[dtype] or value != value:
        found["value"] = _written(value)
    if elsewhere:
        found["elsewhere"] = True
    return found


def _written(number: float) -> float | str:
    """As JSON has it."""
    return number if abs(number) < float("inf") else str(number)


def _alike(one: Fields, other: Fields, dtype: str) -> bool:
    """Whether both say the same, as far as the narrower type can tell."""
    if "error" in one or "error" in other:
        return "error" in one and "error" in other
    if any(one.get(name) != other.get(name) for name in ("lies", "value", "elsewhere")):
        return False
    return all(
        a == b or (isinstance(a, float) and isinstance(b, float)
                   and abs(a - b) <= 4 * UNITS[dtype] * max(1, abs(a)))
        for a, b in zip(one["derivative"], other["derivative"], strict=True)
    )  # fmt: skip


def _is_image(probe: Probe) -> bool:
    return any(np.ndim(each) == 4 for each in probe.inputs)


if __name__ == "__main__":
    framework, file, *options = sys.argv[1:]
    measured = column(framework, compiled="--eager" not in options)
    write_whole(Path(file), json.dumps(measured))
