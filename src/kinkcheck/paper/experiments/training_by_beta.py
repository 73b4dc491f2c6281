"""[B24], section 4 and appendix: test accuracy by β, and training loss by epoch.

The published programs are those with the compound forward, and so are these; what the forward value
does by itself is :mod:`kinkcheck.paper.experiments.forward_confound`'s matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kinkcheck.paper.harness import training_figures, trainings
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.trainings import Epoch, Final
from kinkcheck.study.spec import Spec

Changes = Mapping[str, Mapping[str, str]]
"""Shipped specs by name, each with the keys that are changed, as in TOML."""

_COMPOUND = {"forward": '"compound"'}
_CANNOT = (
    "The reduced run trains on {images} images for {epochs} epochs at one learning rate: it can "
    "show which β diverge, not the published accuracies{more}."
)


def experiment(
    name: str,
    *,
    source: str,
    shows: str,
    full: Changes,
    small: Changes,
    cost: Cost,
    cost_reduced: Cost,
    reduced_cannot: str,
    compared: bool = True,
) -> Experiment[Final | Epoch]:
    """An experiment that trains some studies and shows accuracies and losses.

    Args:
        name: of the experiment.
        source: see :class:`Experiment`, as for the texts below.
        shows: in one line.
        cost: at full size.
        cost_reduced: at reduced size.
        reduced_cannot: a sentence or two.
        full: what is trained at full size.
        small: what is trained at reduced size.
        compared: whether there are published accuracies.

    >>> experiment(
    ...     "x", source="", shows="", full={}, small={"smoke": {}},
    ...     cost=Cost("", "", ""), cost_reduced=Cost("", "", ""),
    ...     reduced_cannot="",
    ... ).name
    'x'
    """
    return Experiment(
        name=name,
        source=source,
        shows=shows,
        cost=cost,
        cost_reduced=cost_reduced,
        row=Final | Epoch,
        measure=_measuring(full, small),
        spreads=True,
        draw=training_figures.draw,
        reduced_cannot=reduced_cannot,
        reduced_is_other=True,
        compare=trainings.compare if compared else None,
        summarise=trainings.summarise,
    )


def specs(changes: Changes) -> dict[str, Spec]:
    """The specs, by the names of their studies.

    >>> specs({"smoke": {"seeds": "2"}})["smoke"].seeds
    (0, 1)
    """
    return {name: trainings.changed(name, **keys) for name, keys in changes.items()}


def _measuring(full: Changes, small: Changes) -> Callable[[Setup], list[Final | Epoch]]:
    def measure(setup: Setup) -> list[Final | Epoch]:
        chosen = specs(small if setup.reduced else full)
        found = [row for name, spec in chosen.items() for row in trainings.train(setup, name, spec)]
        return sorted(found, key=lambda row: isinstance(row, Epoch))  # accuracies first

    return measure


ACCURACIES = (
    experiment(
        "accuracy-lenet5-mnist",
        source="B24, section 4: LeNet-5, MNIST",
        shows="test accuracy by β, training loss by epoch; 16 and 32 bits, mixed, SGD and Adam",
        full={"mnist-lenet5": {}, "mnist-lenet5-adam": {}},
        small={
            "mnist-lenet5-small": {
                **_COMPOUND, "batch_norm": "[false, true]", "seeds": "2", "epochs": "3",
            },
            "mnist-lenet5-adam-small": {"epochs": "3"},
        },
        cost=Cost("480 trainings", "days", "1 GPU", ("mnist",)),
        cost_reduced=Cost("60 trainings", "2 min", "1 busy core", ("mnist",), measured=True),
        reduced_cannot=_CANNOT.format(images="4,000", epochs=3, more=" of 60,000 digits"),
    ),
    experiment(
        "accuracy-vgg11-cifar10",
        source="B24, section 4: VGG-11, CIFAR-10",
        shows="test accuracy by β, training loss by epoch; 16 and 32 bits, mixed, SGD and Adam",
        full={"cifar10-vgg11": {}, "cifar10-vgg11-adam": {}},
        small={"cifar10-vgg11-small": _COMPOUND, "cifar10-vgg11-adam-small": _COMPOUND},
        cost=Cost("480 trainings", "weeks", "1 GPU", ("cifar10",)),
        cost_reduced=Cost("4 trainings", "10 min", "1 busy core", ("cifar10",), measured=True),
        reduced_cannot=_CANNOT.format(
            images="1,280", epochs=5, more=", nor anything of 16 bits; one run each"
        ),
    ),
    experiment(
        "accuracy-vgg11-svhn",
        source="B24, appendix: VGG-11, SVHN",
        shows="test accuracy by β, training loss by epoch; 16 and 32 bits, SGD",
        full={"svhn-vgg11": {}},
        small={
            "svhn-vgg11-small": {
                **_COMPOUND, "data": '"cifar10"', "train_images": "640", "test_images": "512",
                "epochs": "3",
            }
        },
        cost=Cost("72 trainings on 531,131 images", "weeks", "1 GPU", ("svhn",)),
        cost_reduced=Cost(
            "2 trainings, on CIFAR-10",
            "2 min", "1 busy core", ("cifar10",), measured=True,
        ),
        reduced_cannot=_CANNOT.format(images="640", epochs=3, more="")
        + " It trains on CIFAR-10 instead of SVHN, and is set beside the values of CIFAR-10.",
    ),
    experiment(
        "accuracy-resnet18-cifar10",
        source="B24, section 4: ResNet-18, CIFAR-10",
        shows="test accuracy by β, training loss by epoch; 16 and 32 bits, SGD",
        full={"cifar10-resnet18": {}},
        small={"cifar10-resnet18-small": _COMPOUND},
        cost=Cost("240 trainings", "weeks", "1 GPU", ("cifar10",)),
        cost_reduced=Cost("2 trainings", "2 min", "1 busy core", ("cifar10",), measured=True),
        reduced_cannot=_CANNOT.format(images="512", epochs=3, more="; one run each"),
    ),
    experiment(
        "accuracy-densenet121-cifar10",
        source="B24, appendix: DenseNet-121, CIFAR-10",
        shows="test accuracy by β, training loss by epoch; 16 bits, SGD",
        full={"cifar10-densenet121": {}},
        small={
            "cifar10-densenet121-small": {
                **_COMPOUND, "train_images": "256", "test_images": "128", "epochs": "2",
            }
        },
        cost=Cost("60 trainings", "weeks", "1 GPU", ("cifar10",)),
        cost_reduced=Cost("2 trainings", "30 s", "1 busy core", ("cifar10",), measured=True),
        reduced_cannot=_CANNOT.format(images="256", epochs=2, more="; one run each"),
    ),
    experiment(
        "accuracy-resnet50-imagenet",
        source="B24, section 4: ResNet-50, ImageNet",
        shows="test accuracy by β, training loss by epoch; mixed precision, SGD",
        full={"imagenet-resnet50": {}},
        small={"imagenet-resnet50-small": {}},
        cost=Cost("10 trainings", "months", "1 GPU", ("imagenet",)),
        cost_reduced=Cost("2 trainings", "3 min", "1 busy core", ("imagenet",), measured=True),
        reduced_cannot=_CANNOT.format(
            images="64", epochs=2, more=": only that the programs run"
        ),
    ),
)  # fmt: skip
"""The trainings of [B24] under hybrid(β), an experiment a network and data set."""
