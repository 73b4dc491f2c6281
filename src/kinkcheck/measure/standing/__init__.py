"""The standing of a gradient: derivative, limit, subgradient, wrong, or undecided.

A live tie is flat where its active branches have one derivative with respect to what is
differentiated; else it is a kink of the loss. Along a direction that decides every kink the
gradient has a limit, an element of the B-subdifferential; the hull of all limits is the Clarke
subdifferential.
"""

from typing import TYPE_CHECKING

from kinkcheck.lazy import import_when_used
from kinkcheck.measure.standing.records import STANDS, Along, Kind, Standing

if TYPE_CHECKING:
    from kinkcheck.measure.standing.judged import (
        certified_exactly,
        is_one,
        smooth,
        standings,
        tells,
        ties_more,
        told,
    )
    from kinkcheck.measure.standing.part import part, told_in_float32
    from kinkcheck.measure.standing.program import Program, Told
    from kinkcheck.measure.standing.search import Search
    from kinkcheck.measure.standing.verification import verify

__all__ = [
    "STANDS",
    "Along",
    "Kind",
    "Program",
    "Search",
    "Standing",
    "Told",
    "certified_exactly",
    "is_one",
    "part",
    "smooth",
    "standings",
    "tells",
    "ties_more",
    "told",
    "told_in_float32",
    "verify",
]

import_when_used(
    __name__,
    "kinkcheck.measure.standing.judged:certified_exactly",
    "kinkcheck.measure.standing.judged:is_one",
    "kinkcheck.measure.standing.judged:smooth",
    "kinkcheck.measure.standing.judged:standings",
    "kinkcheck.measure.standing.judged:tells",
    "kinkcheck.measure.standing.judged:ties_more",
    "kinkcheck.measure.standing.judged:told",
    "kinkcheck.measure.standing.part:part",
    "kinkcheck.measure.standing.part:told_in_float32",
    "kinkcheck.measure.standing.program:Program",
    "kinkcheck.measure.standing.program:Told",
    "kinkcheck.measure.standing.search:Search",
    "kinkcheck.measure.standing.verification:verify",
)
