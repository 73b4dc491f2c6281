"""Every experiment by its name, in the order of the papers."""

from __future__ import annotations

from kinkcheck.errors import InputError
from kinkcheck.paper.experiment import Experiment
from kinkcheck.paper.forward_confound import FORWARD_CONFOUND
from kinkcheck.paper.norm_against_sign import NORM_AGAINST_SIGN
from kinkcheck.paper.relu_training import RELU_TRAININGS
from kinkcheck.paper.training_by_beta import ACCURACIES
from kinkcheck.paper.volumes import VOLUME_BY_PRECISION
from kinkcheck.paper.weight_divergence import WEIGHT_DIVERGENCE

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        VOLUME_BY_PRECISION,
        WEIGHT_DIVERGENCE,
        *ACCURACIES,
        *RELU_TRAININGS,
        FORWARD_CONFOUND,
        NORM_AGAINST_SIGN,
    )
}


def lookup(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        InputError: there is none.

    >>> lookup("volume-by-precision").source[:3]
    'B24'
    """
    if name not in EXPERIMENTS:
        raise InputError(f"unknown experiment {name!r}; accepted: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
