"""The published numbers, bundled with the package: facts to compare with, never targets.

The tables ``relu_...`` are from the result files of the repository that
accompanies D. Bertoin et al. (NeurIPS 2021), all others are from that of R. Boustany (TMLR 2024):
its result files, notebook outputs and bar charts. The column ``source``, where there is one, says
which. Of the training curves only the loss is bundled, which is what is compared.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

_FOLDER = resources.files("kinkcheck.paper") / "published"

NAMES = (
    "best_learning_rates",
    "bifurcation_volumes",
    "imagenet_resnet50_mixed",
    "relu_dropout_final",
    "relu_sample_volumes",
    "relu_training_final",
    "relu_volumes",
    "relu_zeros_by_architecture",
    "training_curves",
    "training_final",
)
"""The tables there are."""


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """The rows of one of :data:`NAMES`, as they stand in the file.

    >>> table("bifurcation_volumes")[0]["value"]
    'VGG11'
    """
    return tuple(csv.DictReader((_FOLDER / f"{name}.csv").read_text("utf-8").splitlines()))
