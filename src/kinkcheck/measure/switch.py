"""Which sites of a network a selection switches."""

from __future__ import annotations

from collections.abc import Sequence

from kinkcheck import ops
from kinkcheck.errors import InputError
from kinkcheck.families import require_operation
from kinkcheck.measure.forward import Forward, Gradient
from kinkcheck.measure.variation import gradient_variation
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
        self._kinds = [kind for kind in ops.OPERATIONS if self._named(kind, operations)]
        self._operations = operations
        for name in operations or ():
            require_operation(name)
        for selection in (reference, *selections):
            for kind in self._kinds if operations is not None else ():
                ops.require_accepted(kind, selection)

    @staticmethod
    def _named(kind: type[ops.Operation], operations: Sequence[str] | None) -> bool:
        return operations is None or not {kind.family, *kind.names}.isdisjoint(operations)

    def to(self, tape: Tape, selection: Selection) -> dict[Site, Selection]:
        """The sites of a tape that take a selection."""
        chosen = {
            site: selection
            for site in tape.sites
            if self._operations is None
            or not {site.kind.family, site.operation}.isdisjoint(self._operations)
        }
        met = ", ".join(sorted({site.operation for site in tape.sites}))
        if tape.sites and not chosen:
            raise InputError(
                f"operations: no site of {', '.join(self._operations or ())}; the network has {met}"
            )
        accepted = {site: selection for site in chosen if isinstance(selection, site.kind.accepted)}
        if chosen and not accepted:
            ops.require_accepted(next(iter(chosen)).kind, selection)
        return accepted

    def alone(self, forward: Forward, reference: Gradient) -> dict[Site, float]:
        """The l1 variation when a single site is switched to the first selection."""
        base = self.to(forward.tape, self.reference)
        return {
            site: gradient_variation(forward.gradient({**base, site: selection}), reference).l1
            for site, selection in self.to(forward.tape, self.selections[0]).items()
        }
