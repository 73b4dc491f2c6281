"""What the standings of an audit come to, in sentences: is the gradient right?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kinkcheck.audit.report import AuditReport
from kinkcheck.measure.records import Point
from kinkcheck.measure.standing.records import STANDS, Kind, Standing

_NOUNS = {
    Kind.DERIVATIVE: "the derivative",
    Kind.LIMIT: "one of its limits",
    Kind.SUBGRADIENT: "a convex combination of its limits",
}


def of_reference(points: Sequence[Point]) -> list[Standing]:
    """The standing of the reference's gradient at each point where it was looked for, once each.

    >>> of_reference([])
    []
    """
    found: dict[tuple[str, int, int], Standing] = {}
    for point in points:
        if point.reference_standing is not None:
            found[point.precision, point.draw, point.batch] = point.reference_standing
    return list(found.values())


def answer(report: AuditReport) -> str:
    """Whether the gradient is right, in a sentence or a few; empty where nobody looked.

    >>> from kinkcheck.audit import Variation
    >>> d = Variation(0.0, 0.0, 0.0, 0.0, 0.0)
    >>> stands = Standing(Kind.DERIVATIVE, ties=3, flat=3)
    >>> point = Point("float32", 0, 0, "minimal", 2.3, 5.0, d, None, None, None, standing=stands,
    ...               reference_standing=stands)
    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> answer(AuditReport(*names, 0, "native", ["minimal"], [point], [], []))
    'Right at 1 of 1 points: the gradient is the derivative.'
    """
    standings = of_reference(report.points)
    if not standings:
        return ""
    sentences = [_first(standings), *_of_rounding(report)]
    sentences += _others(report, standings)
    return " ".join(sentences)


def _first(standings: Sequence[Standing]) -> str:
    kinds = Counter(each.kind for each in standings)
    right = sum(kinds[kind] for kind in STANDS)
    wrong, total = kinds[Kind.WRONG], len(standings)
    if wrong:
        text = (
            f"Wrong at {wrong} of {total} points: there the gradient is neither the derivative nor "
            "any element of the Clarke subdifferential"
        )
        text += f"; right at {right}" if right else ""
    elif right:
        text = f"Right at {right} of {total} points: the gradient is {_kinds(kinds)}"
        if not any(each.ties for each in standings):
            text += ", for no tie that kinkcheck recognises is live"
    else:
        text = f"Undecided at all {total} points"
    open_ = kinds[Kind.UNDECIDED]
    if open_:
        whys = Counter(each.why for each in standings if each.kind is Kind.UNDECIDED)
        why, _ = whys.most_common(1)[0]
        text += "" if open_ == total else f". Undecided at {open_}"
        text += f": {why}" if why else ""
    return f"{text}."


def _kinds(kinds: Counter[Kind]) -> str:
    """What a gradient is: the derivative at 30 and, at 10 where the loss has a kink, a limit."""
    smooth = kinds[Kind.DERIVATIVE]
    kinked = {kind: kinds[kind] for kind in (Kind.LIMIT, Kind.SUBGRADIENT) if kinds[kind]}
    if not kinked:
        return _NOUNS[Kind.DERIVATIVE]
    total = sum(kinked.values())
    said = " and ".join(
        _NOUNS[kind] + (f" (at {count})" if len(kinked) > 1 else "")
        for kind, count in kinked.items()
    )
    if not smooth:
        return f"{said}, for the loss itself has a kink there"
    return f"the derivative at {smooth} and, at {total} where the loss itself has a kink, {said}"


def _of_rounding(report: AuditReport) -> list[str]:
    """What is tied in a precision and not over the reals."""
    alone: Counter[str] = Counter()
    for site in report.sites:
        alone[site.precision] += site.rounding or 0
    listed = [f"{count:,} at {name}" for name, count in alone.items() if count]
    if not listed:
        return []
    return [
        f"Live ties of a precision alone ({', '.join(listed)}) are no kinks: there it may return "
        "the slope of a branch that is not active over the reals, a rounding error."
    ]


def _others(report: AuditReport, standings: Sequence[Standing]) -> list[str]:
    """The same of each selection, where it is not the same."""
    sentences = []
    for selection in report.selections:
        found = [
            point.standing
            for point in report.points
            if point.selection == selection and point.standing is not None
        ]
        kinds = Counter(each.kind for each in found)
        if not found or kinds == Counter(each.kind for each in standings):
            continue
        listed = [f"{kind} at {kinds[kind]}" for kind in Kind if kinds[kind]]
        sentences.append(f"Under {selection}: {', '.join(listed)}.")
    return sentences
