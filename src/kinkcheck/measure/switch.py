"""Which sites of a network a selection switches."""

from __future__ import annotations

from collections.abc import Sequence

from kinkcheck.errors import InputError
from kinkcheck.measure.forward import Chooser, Forward, Gradient
from kinkcheck.measure.variation import gradient_variation
from kinkcheck.ops.row import Row, require_name
from kinkcheck.ops.table import ROWS
from kinkcheck.selection import Selection
from kinkcheck.tape import Site, Tape


class Switch:
    """Which sites are switched to a selection, the others keeping their own."""

    def __init__(
        self,
        reference: Selection,
        selections: list[Selection],
        operations: Sequence[str] | None,
    ) -> None:
        self.reference = reference
        self.selections = selections
        rows = [row for row in ROWS if self._named(row, operations)]
        self._operations = operations
        for name in operations or ():
            require_name(name, ROWS)
        for selection in (reference, *selections):
            for row in rows if operations is not None else ():
                row.require(selection)

    @staticmethod
    def _named(row: Row, operations: Sequence[str] | None) -> bool:
        return operations is None or not {row.family, row.name}.isdisjoint(operations)

    def to(self, tape: Tape, selection: Selection) -> dict[Site, Selection]:
        """The sites of a tape that take a selection."""
        chosen = {
            site: selection
            for site in tape.sites
            if self._operations is None
            or not {site.row.family, site.operation}.isdisjoint(self._operations)
        }
        met = ", ".join(sorted({site.operation for site in tape.sites}))
        if tape.sites and not chosen:
            raise InputError(
                f"operations: no site of {', '.join(self._operations or ())}; the network has {met}"
            )
        accepted = {site: selection for site in chosen if site.row.has(selection)}
        if chosen and not accepted:
            next(iter(chosen)).row.require(selection)
        return accepted

    def programs(self) -> list[Chooser]:
        """The programs that are compared: the reference, and then one for each selection."""
        others = [lambda tape, s=each: self._program(tape, s) for each in self.selections]
        return [lambda tape: self.to(tape, self.reference), *others]

    def _program(self, tape: Tape, selection: Selection) -> dict[Site, Selection]:
        return {**self.to(tape, self.reference), **self.to(tape, selection)}

    def alone(self, forward: Forward, reference: Gradient) -> dict[Site, float]:
        """The l1 variation when a single site is switched to the first selection."""
        base = self.to(forward.tape, self.reference)
        return {
            site: gradient_variation(forward.gradient({**base, site: selection}), reference).l1
            for site, selection in self.to(forward.tape, self.selections[0]).items()
        }
