"""Which sites have kinks whose choices are not free of each other."""

from __future__ import annotations

import numpy as np

from kinkcheck.measure.standing.cones import rank
from kinkcheck.measure.standing.program import DIRECTIONS, Census, Program
from kinkcheck.measure.standing.tables import NOISE
from kinkcheck.tape import Site


def dependent(program: Program, census: Census) -> list[Site]:
    """The sites with kinks that depend on others, their own or those of other sites.

    Where kinks are independent, every combination of choices belongs to a direction; where they are
    not, choices made one by one may belong to none. All kinks depend on each other as far as the
    directions tell, if there are more of them than directions.

    Args:
        program: the program.
        census: its kinks.
    """
    table = program.rows(census, {}, min(census.rows + 1, DIRECTIONS, program.size))
    first = np.unique(table.of, return_index=True)[1]
    rows = table.tangents - table.tangents[first][table.of]
    moved = np.abs(rows).max(1, initial=0) > NOISE * table.scale[table.of]
    rows = rows[moved] / np.linalg.norm(rows[moved], axis=1, keepdims=True)
    of = table.of[moved]
    sites = [each.kinks.site for each in census.apart]
    counts = [each.outputs.numel() for each in census.apart]
    site_of = np.repeat(np.arange(len(sites)), counts)[of]
    found = []
    for number, site in enumerate(sites):
        own = site_of == number
        alone = sum(rank(rows[of == kink]) for kink in np.unique(of[own]))
        if alone + rank(rows[~own]) > rank(rows):
            found.append(site)
    return found
