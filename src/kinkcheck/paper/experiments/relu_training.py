"""[B21], section 4 and appendix: training under values of ReLU'(0)."""

from __future__ import annotations

from kinkcheck.paper.experiments.training_by_beta import experiment
from kinkcheck.paper.harness.experiment import Cost

RELU_TRAININGS = (
    experiment(
        "relu-training-mnist",
        source="B21, section 4 and appendix: MLP, MNIST",
        shows="test accuracy by ReLU'(0), training loss by epoch; with and without batch norm",
        full={"relu-mnist-mlp": {}},
        small={"relu-mnist-mlp-small": {}},
        cost=Cost("300 trainings and their searches", "days", "1 GPU", ("mnist",)),
        cost_reduced=Cost("8 trainings", "2 min", "1 busy core", ("mnist",), measured=True),
        reduced_cannot=(
            "The reduced run trains on 2,000 digits for 3 epochs at one learning rate, two runs "
            "each: it can show a value that fails, not one that is a little worse."
        ),
        compared=False,
    ),
    experiment(
        "relu-training-cifar10",
        source="B21, section 4 and appendix: VGG-11 and ResNet-18, CIFAR-10",
        shows="test accuracy by ReLU'(0), training loss by epoch; SGD and Adam",
        full={"relu-cifar10-vgg11": {}, "relu-cifar10-vgg11-adam": {}, "relu-cifar10-resnet18": {}},
        small={
            "relu-cifar10-vgg11-adam-small": {"seeds": "2"},
            "relu-cifar10-resnet18-small": {"seeds": "2"},
        },
        cost=Cost("580 trainings and their searches", "weeks", "1 GPU", ("cifar10",)),
        cost_reduced=Cost("8 trainings", "7 min", "1 core", ("cifar10",), measured=True),
        reduced_cannot=(
            "The reduced run trains VGG-11 under Adam on 1,280 images for 5 epochs and ResNet-18 "
            "on 512 for 3, both without batch norm, two runs each at one learning rate: it can "
            "show a value that fails, nothing smaller. It leaves out batch norm, and VGG-11 under "
            "SGD, of which nothing was published."
        ),
    ),
    experiment(
        "relu-training-svhn",
        source="B21, appendix: VGG-11, SVHN",
        shows="test accuracy by ReLU'(0) from 0 to 50, training loss by epoch; Adam",
        full={"relu-svhn-vgg11-adam": {}},
        small={
            "relu-svhn-vgg11-adam-small": {
                "data": '"cifar10"', "train_images": "640", "epochs": "3",
            }
        },
        cost=Cost(
            "130 trainings on 531,131 images and their searches",
            "weeks", "1 GPU", ("svhn",),
        ),
        cost_reduced=Cost(
            "3 trainings, on CIFAR-10",
            "4 min", "1 busy core", ("cifar10",), measured=True,
        ),
        reduced_cannot=(
            "The reduced run trains on 640 images of CIFAR-10 instead of SVHN for 3 epochs, one "
            "run each: it can show a value that fails, nothing of SVHN, and is set beside the "
            "values of CIFAR-10."
        ),
    ),
    experiment(
        "relu-training-imagenet",
        source="B21, section 4: ResNet-50, ImageNet",
        shows="test accuracy under ReLU'(0) = 0 and 1, training loss by epoch; SGD",
        full={"relu-imagenet-resnet50": {}},
        small={"relu-imagenet-resnet50-small": {}},
        cost=Cost("4 trainings", "weeks", "1 GPU", ("imagenet",)),
        cost_reduced=Cost("2 trainings", "4 min", "1 busy core", ("imagenet",), measured=True),
        reduced_cannot=(
            "The reduced run trains on 64 images for 2 epochs: it shows that the programs run."
        ),
        compared=False,
    ),
)  # fmt: skip
"""The trainings of [B21], an experiment a data set."""
