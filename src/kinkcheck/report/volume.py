"""An estimate of volumes in a terminal."""

from __future__ import annotations

from kinkcheck.audit.verdict import not_measured, not_switched
from kinkcheck.audit.volume import Volume
from kinkcheck.measure.zones import Zone
from kinkcheck.report.tables import proportion, standing_table, threshold_table, zone_table
from kinkcheck.terminal import Terminal


def print_volume(volume: Volume, out: Terminal) -> None:
    """Print the tables of an estimate, and what was found.

    >>> print_volume(Volume({"reference": "native"}, [], 0, 0, 1, []), Terminal())
    Thresholds on the variation ...
    No point was visited.
    """
    if any(each.reference_standings for each in volume.summaries):
        out.print(standing_table(volume.summaries, volume.settings["reference"]))
    if any(each.zones for each in volume.summaries):
        out.print(zone_table(volume.summaries))
    out.print(threshold_table(volume.summaries))
    out.print(volume_sentence(volume))


def volume_sentence(volume: Volume) -> str:
    """What was found, in a sentence or a few.

    Rules: for each precision and selection the proportion of bifurcation by the lift, else by the
    threshold, else nothing; then the intervals' confidence and method, what they are about, and
    how much of the grid was visited; then what was not measured, and what was not switched.

    >>> volume_sentence(Volume({}, [], 0, 0, 1, []))
    'No point was visited.'
    """
    if not volume.summaries:
        return "No point was visited."
    many = len({summary.selection for summary in volume.summaries}) > 1
    parts = []
    for summary in volume.summaries:
        shares, judge = summary.zones, "bifurcations by the lift"
        if not shares:
            shares, judge = summary.zones_by_threshold, "above the published threshold"
        if not shares:
            continue
        where = f"{summary.precision}, {summary.selection}" if many else summary.precision
        parts.append(f"{proportion(shares[Zone.BIFURCATION])} % at {where} {judge}")
    if not parts:
        return "No precision that was asked has a published threshold, and no point was lifted."
    first = volume.summaries[0]
    draws = len({point.draw for point in volume.points})
    batches = len({point.batch for point in volume.points})
    about = (
        "mini-batches at the one parameter draw that was looked at"
        if draws == 1
        else "parameters on the one mini-batch that was looked at"
        if batches == 1
        else "parameters and mini-batches"
    )
    early = ""
    if volume.looks > 1:
        enough = "were enough" if volume.narrow else "were not enough for the width asked"
        early = f"; {volume.visited} of {volume.planned} points {enough}"
    proportions = (
        f"Of all points, over {about}: {'; '.join(parts)} (in brackets "
        f"{100 * first.confidence:.4g} % intervals, {first.interval_method}{early})."
    )
    beside = not_measured(volume.left_out) + not_switched(volume.unseen)
    return " ".join([proportions, *beside])
