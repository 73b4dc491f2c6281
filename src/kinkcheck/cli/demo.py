"""``kinkcheck demo``: two programs, one function, two derivatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkcheck.cli.options import Verbose
from kinkcheck.terminal import Terminal

if TYPE_CHECKING:
    from kinkcheck.measure.standing.records import Kind
    from kinkcheck.programs import Evaluation


def demo(verbose: Verbose = False) -> None:
    """Show programs that compute the same function and differ in their derivative."""
    from kinkcheck import programs
    from kinkcheck.report.tables import program_table, slope_table, zero_table

    console = Terminal()
    console.print(
        "max1 (a loop with >) and max2 (torch.max) compute one function. zero(t) = max1(t·x) − "
        "max2(t·x) is 0 for every t, and so is its derivative. AD says:\n"
    )
    x, equal, _ = programs.ENTRIES
    console.print(slope_table(x, _slopes(x, None if verbose else ("max1", "max2", "zero"))))
    console.print(
        "All t·x are tied at t = 0, where the maximum has a kink. max1 returns a limit of slopes "
        "nearby, max2 something between them: both are right. zero has no kink, and AD is wrong, "
        "at every precision; where all entries are equal it is off by rounding alone:"
    )
    if not verbose:
        places = [(_entries(each), _of_zero(each)) for each in (x, equal)]
        console.print(zero_table(places))
        console.print("kinkcheck demo -v shows more; kinkcheck audit lenet5 looks at a network.")
        return
    console.print()
    for x in programs.ENTRIES:
        by_t = {t: _by_precision(t, x) for t in programs.PLACES}
        console.print(program_table(x, by_t), "")
    console.print(
        "Where the tied entries differ (t = 0, distinct entries) the two programs differ over the "
        "reals: a bifurcation, at every precision. Where they are equal both programs have one "
        "derivative over the reals, and differ by a rounding error that shrinks with the "
        "precision: a compensation. The ReLUs of the last rows differ in their derivative at 0 "
        "alone."
    )


def _slopes(
    x: tuple[float, ...], names: tuple[str, ...] | None
) -> list[tuple[str, tuple[float, float], float, Kind]]:
    """Rows of the first table: programs at t = 0, their slopes, what AD returns, what that is."""
    import torch

    import kinkcheck
    from kinkcheck import programs

    entries = torch.tensor(x, dtype=torch.float64)
    rows = []
    for name in names or programs.PROGRAMS:
        program = programs.PROGRAMS[name]
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        found = kinkcheck.check(program, (t, entries), raise_exception=False)
        (returned,) = torch.autograd.grad(program(t, entries), t)
        rows.append((name, programs.slopes(program, x), returned.item(), found.kind))
    return rows


def _by_precision(t: float, x: tuple[float, ...]) -> dict[str, list[Evaluation]]:
    from kinkcheck import programs
    from kinkcheck.arithmetic import precision

    return {
        name: programs.evaluate(t, x, precision.PRECISIONS[name].storage)
        for name in ("float16", "bfloat16", "float32", "float64")
    }


def _of_zero(x: tuple[float, ...]) -> list[Evaluation]:
    """The program zero at t = 0 in each precision."""
    found = _by_precision(0.0, x).values()
    return [each for evaluations in found for each in evaluations if each.program == "zero"]


def _entries(x: tuple[float, ...]) -> str:
    return f"({', '.join(f'{entry:g}' for entry in x)})"
