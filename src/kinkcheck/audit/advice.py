"""What to do after an audit, and where to look: only what was checked to be possible there."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from kinkcheck.audit.counts import SiteCount
from kinkcheck.audit.effect import Effect, Place, effects, place
from kinkcheck.audit.standings import is_wrong
from kinkcheck.errors import InputError
from kinkcheck.measure.records import Point
from kinkcheck.measure.standing.records import STANDS, Kind
from kinkcheck.measure.zones import Zone
from kinkcheck.ops.table import ROWS
from kinkcheck.selection import Limit, Selection, parse

if TYPE_CHECKING:
    from kinkcheck.audit.report import AuditReport

_WHERE = 3  # sites
_FAMILY = {row.name: row.family for row in ROWS}


def advice(report: AuditReport) -> list[str]:
    """What to do, in sentences; none where there is nothing to be said.

    * Where the gradient is wrong: what names the calls that make it so; and a selection that was
      compared, if it is right at all these points.
    * Where the choice matters: to give it a name, with what can act there: ``nn.convert`` where
      modules make the calls, ``record`` where functions do. A selection is recommended only if its
      rounding error is the smallest at every point where that was measured, and nothing speaks
      against its gradient there, and not where it is more than rounding that parts them; a higher
      precision only where there is one, and rounding is what makes the difference.
    * Where the choice is lost in rounding everywhere, and nothing is wrong: nothing. Not where it
      moves the gradient over the reals: what rounds may be other parameters.
    * Where nobody knows: what would tell.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
    >>> advice(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    []
    """
    return [*_of_wrong(report), *_of_choice(report), *_of_unknown(report)]


def _of_wrong(report: AuditReport) -> list[str]:
    wrong = _with_reference(report.points, Kind.WRONG)
    if not wrong:
        return []
    sentences = ["kinkcheck.check of a part of the program names the calls that make it so."]
    for selection in report.selections:
        stands = {
            place(each)
            for each in report.points
            if each.selection == selection
            and each.standing is not None
            and each.standing.kind in STANDS
        }
        if wrong <= stands:
            name = _naming(report, selection, wrong)
            return [*sentences, f"Under {selection} it is right there: name it with {name}."]
    return sentences


def _with_reference(points: Sequence[Point], kind: Kind) -> set[Place]:
    found = [(place(each), each.reference_standing) for each in points]
    return {at for at, standing in found if standing is not None and standing.kind is kind}


def _of_choice(report: AuditReport) -> list[str]:
    moves = effects(report.points)
    matter = {at for at, effect in moves.items() if effect is Effect.MATTERS}
    if matter:
        truly = any(p.zone is Zone.BIFURCATION for p in report.points if place(p) in matter)
        better = None if truly else _better(report, matter)
        cure = f"give the choice a name with {_naming(report, better, matter)}"
        if better is not None:
            cure = f"{cure}: {better} has the smaller rounding error there"
        if better == report.reference == "native":
            cure = "keep native, which has the smaller rounding error there"
        if any(_is_rounding(each) for each in report.points if place(each) in matter):
            cure += ", or compute in a higher precision"
        return [f"Where the choice outweighs rounding, {cure}."]
    lost = {at for at, effect in moves.items() if effect is Effect.ROUNDING}
    if not lost or {Effect.BELOW, Effect.UNKNOWN} & set(moves.values()) or is_wrong(report):
        return []
    better = _better(report, lost)
    sentences = ["For the choice at kinks nothing has to be done."]
    if better is not None and better != report.reference:
        name = _naming(report, better, lost)
        sentences.append(f"{better} has the smaller rounding error: name it with {name}.")
    return sentences


def _is_rounding(point: Point) -> bool:
    """Whether the variation of a point that moved would shrink in a higher precision."""
    moved = math.isfinite(point.variation.l1) and point.variation.l1 > 0
    return moved and point.precision != "float64" and point.zone is Zone.COMPENSATION


def _better(report: AuditReport, at: set[Place]) -> str | None:
    """The program whose rounding error is the smallest at each of some places where it is known.

    None if none is at all of them, or nobody knows, or its gradient may be wrong at one of them: a
    wrong gradient is computed with a small rounding error as well as a right one.
    """
    errors: dict[Place, dict[str, float]] = {}
    for point in report.points:
        lift = point.lift
        if lift is None or lift.error_reference_l1 is None or lift.error_selection_l1 is None:
            continue
        if place(point) in at:
            here = errors.setdefault(place(point), {report.reference: lift.error_reference_l1})
            here[point.selection] = lift.error_selection_l1
    least = Counter(
        name
        for here in errors.values()
        for name, error in here.items()
        if error == min(here.values())
    )
    unbeaten = [name for name, count in least.items() if count == len(errors)]
    doubtful = _doubtful(report, at)
    return unbeaten[0] if len(unbeaten) == 1 and unbeaten[0] not in doubtful else None


def _doubtful(report: AuditReport, at: set[Place]) -> set[str]:
    """The programs that do not stand at one of some places, or differ there and nobody looked."""
    found = set()
    for point in report.points:
        if place(point) not in at:
            continue
        reference, standing = point.reference_standing, point.standing
        if reference is not None and reference.kind not in STANDS:
            found.add(report.reference)
        differs = point.zone is Zone.BIFURCATION
        if differs if standing is None else standing.kind not in STANDS:
            found.add(point.selection)
    return found


def _naming(report: AuditReport, selection: str | None, at: set[Place]) -> str:
    """What gives the choice at live ties a name: a conversion, where modules make the calls."""
    precisions = {name for name, _, _ in at}
    live = [site for site in switched(report) if _live(site) and site.precision in precisions]
    families = list(dict.fromkeys(_FAMILY[s.operation] for s in live if _takes(s, selection)))
    if not families:
        return "kinkcheck.record"
    chosen = ", ".join(f'{family}="{selection or "..."}"' for family in families)
    rest = "" if all(_takes(s, selection) for s in live) else " (other calls: kinkcheck.record)"
    return f"kinkcheck.nn.convert(model, {chosen}){rest}"


def switched(report: AuditReport) -> list[SiteCount]:
    """The sites that were to be switched: of all operations, or of those that were asked for.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> pool = SiteCount("float32", "pool", "max_pool2d", 0, 100, 60, 40, None)
    >>> switched(AuditReport(*names, 0, "native", ["minimal"], [], [pool], [], ["relu"]))
    []
    """
    asked = report.operations
    return [
        site
        for site in report.sites
        if asked is None or site.operation in asked or _FAMILY.get(site.operation) in asked
    ]


def _takes(site: SiteCount, selection: str | None) -> bool:
    """Whether a conversion gives the calls of a site a selection."""
    if not site.converts or site.operation not in _FAMILY:
        return False
    if selection is None:
        return True
    row = next(row for row in ROWS if row.name == site.operation)
    return any(row.has(each) and not isinstance(each, Limit) for each in known([selection]))


def known(selections: Iterable[str]) -> list[Selection]:
    """Those that this version of kinkcheck has: a file may be of another.

    >>> known(["minimal", "maximal"])
    [Minimal()]
    """
    found = []
    for text in selections:
        with suppress(InputError):
            found.append(parse(text))
    return found


def _live(site: SiteCount) -> int:
    """How many windows have a tie that may reach a parameter."""
    return site.tied - (site.dead or 0)


def _of_unknown(report: AuditReport) -> list[str]:
    sentences = []
    lifted = any(point.lift is not None for point in report.points)
    unjudged = any(
        point.reference_standing is None and math.isfinite(point.gradient_l1 + point.loss)
        for point in report.points
    )
    if report.sites and unjudged and not lifted:
        sentences.append("What was not judged, --lift (in Python lifted=True) judges.")
    if report.unseen:
        sentences.append(
            "What was not switched, kinkcheck.check judges by difference quotients, a part of the "
            "program at a time."
        )
    return sentences


def where(report: AuditReport) -> str:
    """The sites to look at, most live ties first; empty if none has a live tie.

    Where nobody counted which ties are live, all of them.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> site = SiteCount("float32", "pool", "max_pool2d", 0, 100, 60, 40, None, dead=20)
    >>> where(AuditReport(*names, 0, "native", ["minimal"], [], [site], []))
    'pool (max_pool2d): live ties in 40 of 100 windows.'
    """
    most: dict[tuple[str, str, int], SiteCount] = {}
    for site in report.sites:
        key = site.layer, site.operation, site.call
        if _live(site) > (_live(most[key]) if key in most else 0):
            most[key] = site
    found = sorted(most.values(), key=lambda site: -_live(site))
    several = len({site.precision for site in report.sites}) > 1
    lines = [
        f"{site.name}: {'ties' if site.dead is None else 'live ties'} in {_live(site):,} of "
        f"{site.windows:,} windows"
        f"{f' at {site.precision}' if several else ''}"
        for site in found[:_WHERE]
    ]
    more = len(found) - len(lines)
    tail = [f"{more} more site{'s' * (more > 1)}"] if more > 0 else []
    return f"{'; '.join([*lines, *tail])}." if lines else ""


def why_undecided(report: AuditReport) -> str:
    """Why points are undecided: the most common reason; empty if none is.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> why_undecided(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    ''
    """
    whys = Counter(
        each.reference_standing.why
        for each in report.points
        if each.reference_standing is not None
        and each.reference_standing.kind is Kind.UNDECIDED
        and each.reference_standing.why
    )
    return f"{whys.most_common(1)[0][0]}." if whys else ""
