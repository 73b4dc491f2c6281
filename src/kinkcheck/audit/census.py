"""The census of sites, and of what was out of reach, summed over points."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from kinkcheck.audit.counts import SiteCount, UnseenCount
from kinkcheck.measure.causes import Causes
from kinkcheck.measure.records import Found


@dataclass
class _Tally:
    """What was counted at one site in one precision."""

    windows: int = 0
    tied: int = 0
    tied_at_zero: int = 0
    variation: list[float] = field(default_factory=list)
    lifted: list[float] = field(default_factory=list)
    causes: list[Causes] = field(default_factory=list)
    caused: int = 0
    unlifted: int = 0
    form: str = ""


class Census:
    """Counts of sites and of what was unseen, summed over points."""

    def __init__(self) -> None:
        self._tallies: defaultdict[tuple[str, str, str, int], _Tally] = defaultdict(_Tally)
        self._unseen: Counter[tuple[str, str, str]] = Counter()
        self._jumps: defaultdict[tuple[str, str, str], list[tuple[int, int]]] = defaultdict(list)

    def add(self, precision: str, found: Found) -> None:
        """Add one point, by the name of its precision."""
        for site in found.sites:
            tally = self._tallies[precision, site.layer, site.operation, site.call]
            tally.windows += site.windows
            tally.tied += site.tied
            tally.form = site.form
            tally.tied_at_zero += site.tied_at_zero
            tally.variation += [] if site.variation_l1 is None else [site.variation_l1]
            tally.lifted += [] if site.lift_variation_l1 is None else [site.lift_variation_l1]
            if site.causes is not None:
                tally.causes.append(site.causes)
                tally.caused += site.tied
                tally.unlifted += site.tied - site.causes.dead if site.causes.exact is None else 0
        for unseen in found.unseen:
            key = unseen.layer, unseen.operation, unseen.reason
            self._unseen[key] += unseen.calls
            if unseen.elements is not None and unseen.on_jump is not None:
                self._jumps[key].append((unseen.elements, unseen.on_jump))

    def sites(self) -> list[SiteCount]:
        """One entry for each precision and site, in the order in which they were met."""
        return [_counted(key, tally) for key, tally in self._tallies.items()]

    def unseen(self) -> list[UnseenCount]:
        """One entry for each layer and operation."""
        return [
            UnseenCount(*key, calls, *map(sum, zip(*self._jumps.get(key, ()), strict=True)))
            for key, calls in self._unseen.items()
        ]


def _counted(key: tuple[str, str, str, int], tally: _Tally) -> SiteCount:
    exact = _sum([each.exact for each in tally.causes])
    # Where no point has a higher precision to be lifted to, none is missing either.
    unknown = tally.tied - tally.caused + (0 if exact is None else tally.unlifted)
    return SiteCount(
        *key,
        windows=tally.windows,
        tied=tally.tied,
        tied_at_zero=tally.tied_at_zero,
        variation_l1=_mean(tally.variation),
        dead=_sum([each.dead for each in tally.causes]),
        exact=exact,
        rounding=_sum([each.rounding for each in tally.causes]),
        lift_variation_l1=_mean(tally.lifted),
        cause_unknown=unknown if tally.causes else None,
        form=tally.form,
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
