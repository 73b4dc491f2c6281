"""The names of the experiments, known without PyTorch, in the order of the papers."""

from __future__ import annotations

from kinkcheck.errors import unknown

NAMES = (
    "programs",
    "tied-windows",
    "variation-histograms",
    "thresholds",
    "volume-by-precision",
    "volume-by-depth",
    "volume-by-batch-size",
    "volume-by-batch-norm",
    "norm-pool",
    "draws-in-zone",
    "weight-divergence",
    "accuracy-lenet5-mnist",
    "accuracy-vgg11-cifar10",
    "accuracy-vgg11-svhn",
    "accuracy-resnet18-cifar10",
    "accuracy-densenet121-cifar10",
    "accuracy-resnet50-imagenet",
    "threshold-against-lift",
    "forward-confound",
    "norm-against-sign",
    "spellings",
    "standing",
    "zoo",
    "relu-introduction",
    "relu-volumes",
    "relu-sample-volumes",
    "relu-zeros",
    "relu-zeros-by-architecture",
    "relu-backward-confound",
    "relu-dropout",
    "relu-training-mnist",
    "relu-training-cifar10",
    "relu-training-svhn",
    "relu-training-imagenet",
)

UNPUBLISHED = (
    "programs",
    "tied-windows",
    "variation-histograms",
    "draws-in-zone",
    "weight-divergence",
    "norm-against-sign",
    "spellings",
    "standing",
    "zoo",
    "relu-introduction",
    "relu-zeros",
    "relu-training-mnist",
    "relu-training-imagenet",
)
"""Those that have no published values to compare with."""


def require_experiment(name: str) -> None:
    """Check that there is an experiment of a name.

    Raises:
        InputError: there is not; the message says which there are.

    >>> require_experiment("relu-zeros")
    """
    if name not in NAMES:
        raise unknown("experiment", name, NAMES)
