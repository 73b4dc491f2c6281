"""[B21], section 4 and appendix: training under values of ReLU'(0).

The published final accuracies are bundled (``relu_training_final``); those of ResNet-18 are
compared by ``relu-backward-confound``.
"""

from __future__ import annotations

from kinkcheck.paper.training_by_beta import experiment

RELU_TRAININGS = (
    experiment(
        "relu-training-mnist",
        source="B21, section 4 and appendix: MLP, MNIST",
        shows="test accuracy by ReLU'(0), training loss by epoch; with and without batch norm",
        full={"relu-mnist-mlp": {}},
        small={"relu-mnist-mlp-small": {}},
        cost="300 trainings and their searches; days on one GPU (an estimate)",
        cost_reduced="8 trainings; 2 minutes on one busy core",
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
        small={"relu-cifar10-vgg11-small": {"epochs": "3"}},
        cost="480 trainings and their searches; weeks on one GPU (an estimate)",
        cost_reduced="2 trainings; 4 minutes on one busy core",
        reduced_cannot=(
            "The reduced run trains VGG-11 on 1,280 images for 3 epochs, one run each: it can "
            "show a value that fails, nothing smaller."
        ),
        compared=False,
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
        cost="140 trainings on 531,131 images and their searches; weeks on one GPU (an estimate)",
        cost_reduced="3 trainings, on CIFAR-10; 4 minutes on one busy core",
        reduced_cannot=(
            "The reduced run trains on 640 images of CIFAR-10 instead of SVHN for 3 epochs, one "
            "run each: it can show a value that fails, nothing of SVHN."
        ),
        compared=False,
    ),
    experiment(
        "relu-training-imagenet",
        source="B21, section 4: ResNet-50, ImageNet",
        shows="test accuracy under ReLU'(0) = 0 and 1, training loss by epoch; SGD",
        full={"relu-imagenet-resnet50": {}},
        small={"relu-imagenet-resnet50-small": {}},
        cost="4 trainings; weeks on one GPU (an estimate)",
        cost_reduced="2 trainings; 4 minutes on one busy core",
        reduced_cannot=(
            "The reduced run trains on 64 images for 2 epochs: it shows that the programs run."
        ),
        compared=False,
    ),
)  # fmt: skip
"""The trainings of [B21], an experiment a data set."""
