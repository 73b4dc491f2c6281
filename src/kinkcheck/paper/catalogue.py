"""Every experiment by its name, in the order of :mod:`kinkcheck.paper.names`."""

from __future__ import annotations

from typing import Any

from kinkcheck.paper.experiments.draws_by_images import DRAWS_IN_ZONE, RELU_SAMPLE_VOLUMES
from kinkcheck.paper.experiments.forward_confound import FORWARD_CONFOUND
from kinkcheck.paper.experiments.lift import THRESHOLD_AGAINST_LIFT
from kinkcheck.paper.experiments.norm_against_sign import NORM_AGAINST_SIGN
from kinkcheck.paper.experiments.norm_pool import NORM_POOL
from kinkcheck.paper.experiments.programs import PROGRAMS
from kinkcheck.paper.experiments.relu_backward_confound import RELU_BACKWARD_CONFOUND
from kinkcheck.paper.experiments.relu_dropout import RELU_DROPOUT
from kinkcheck.paper.experiments.relu_introduction import RELU_INTRODUCTION
from kinkcheck.paper.experiments.relu_training import RELU_TRAININGS
from kinkcheck.paper.experiments.relu_volumes import RELU_VOLUMES
from kinkcheck.paper.experiments.relu_zeros import RELU_ZEROS
from kinkcheck.paper.experiments.relu_zeros_by_architecture import RELU_ZEROS_BY_ARCHITECTURE
from kinkcheck.paper.experiments.spellings import SPELLINGS
from kinkcheck.paper.experiments.standing import STANDING
from kinkcheck.paper.experiments.thresholds import THRESHOLDS
from kinkcheck.paper.experiments.tied_windows import TIED_WINDOWS
from kinkcheck.paper.experiments.training_by_beta import ACCURACIES
from kinkcheck.paper.experiments.variations import VARIATION_HISTOGRAMS
from kinkcheck.paper.experiments.volumes import (
    VOLUME_BY_BATCH_NORM,
    VOLUME_BY_BATCH_SIZE,
    VOLUME_BY_DEPTH,
    VOLUME_BY_PRECISION,
)
from kinkcheck.paper.experiments.weight_divergence import WEIGHT_DIVERGENCE
from kinkcheck.paper.experiments.zoo import ZOO
from kinkcheck.paper.harness.experiment import Experiment
from kinkcheck.paper.names import require_experiment

EXPERIMENTS: dict[str, Experiment[Any]] = {
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
        DRAWS_IN_ZONE,
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
        RELU_SAMPLE_VOLUMES,
        RELU_ZEROS,
        RELU_ZEROS_BY_ARCHITECTURE,
        RELU_BACKWARD_CONFOUND,
        RELU_DROPOUT,
        *RELU_TRAININGS,
    )
}


def lookup(name: str) -> Experiment[Any]:
    """The experiment of a name.

    Raises:
        InputError: there is none.

    >>> lookup("volume-by-precision").source[:3]
    'B24'
    """
    require_experiment(name)
    return EXPERIMENTS[name]
