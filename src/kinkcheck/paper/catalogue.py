"""Every experiment by its name, in the order of :mod:`kinkcheck.paper.names`."""

from __future__ import annotations

from kinkcheck.paper.experiment import Experiment
from kinkcheck.paper.forward_confound import FORWARD_CONFOUND
from kinkcheck.paper.lift import THRESHOLD_AGAINST_LIFT
from kinkcheck.paper.names import require_experiment
from kinkcheck.paper.norm_against_sign import NORM_AGAINST_SIGN
from kinkcheck.paper.norm_pool import NORM_POOL
from kinkcheck.paper.programs import PROGRAMS
from kinkcheck.paper.relu_backward_confound import RELU_BACKWARD_CONFOUND
from kinkcheck.paper.relu_introduction import RELU_INTRODUCTION
from kinkcheck.paper.relu_training import RELU_TRAININGS
from kinkcheck.paper.relu_volumes import RELU_VOLUMES
from kinkcheck.paper.relu_zeros import RELU_ZEROS
from kinkcheck.paper.spellings import SPELLINGS
from kinkcheck.paper.standing import STANDING
from kinkcheck.paper.thresholds import THRESHOLDS
from kinkcheck.paper.tied_windows import TIED_WINDOWS
from kinkcheck.paper.training_by_beta import ACCURACIES
from kinkcheck.paper.variations import VARIATION_HISTOGRAMS
from kinkcheck.paper.volumes import (
    VOLUME_BY_BATCH_NORM,
    VOLUME_BY_BATCH_SIZE,
    VOLUME_BY_DEPTH,
    VOLUME_BY_PRECISION,
)
from kinkcheck.paper.weight_divergence import WEIGHT_DIVERGENCE
from kinkcheck.paper.zoo import ZOO

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        PROGRAMS,
        TIED_WINDOWS,
        VARIATION_HISTOGRAMS,
        THRESHOLDS,
        VOLUME_BY_PRECISION,
        VOLUME_BY_DEPTH,
        VOLUME_BY_BATCH_SIZE,
        VOLUME_BY_BATCH_NORM,
        NORM_POOL,
        WEIGHT_DIVERGENCE,
        *ACCURACIES,
        THRESHOLD_AGAINST_LIFT,
        FORWARD_CONFOUND,
        NORM_AGAINST_SIGN,
        SPELLINGS,
        STANDING,
        ZOO,
        RELU_INTRODUCTION,
        RELU_VOLUMES,
        RELU_ZEROS,
        RELU_BACKWARD_CONFOUND,
        *RELU_TRAININGS,
    )
}


def lookup(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        InputError: there is none.

    >>> lookup("volume-by-precision").source[:3]
    'B24'
    """
    require_experiment(name)
    return EXPERIMENTS[name]
