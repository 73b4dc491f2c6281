"""The networks of the two papers, with or without batch norm, by name.

Every ReLU and every max pool of a network is a module of its own, so that each has its own layer
name and is called once in a forward pass. Nothing here needs torchvision.

================================== ============================================ ================
name                               network                                      side of an image
================================== ============================================ ================
``lenet5``                         :class:`LeNet5`                              16 or more
``vgg9`` ``vgg11`` ``vgg13``       :class:`VGG`                                 32 to 63
``vgg16`` ``vgg19``
``resnet18`` ``resnet34``          :class:`ResNet`; the ImageNet stem above 64  2 or more
``resnet50``
``densenet121``                    :class:`DenseNet121`; the ImageNet stem      16 or more
                                   above 64
``densenet121-published``          :class:`DenseNet121` as in the code of R.    31 or more
                                   Boustany (TMLR 2024)
``mlp``                            :class:`MLP` of width 256 and depth 3        1 or more
``mlp-2048``                       :class:`MLP` of width 2048 and depth 3       1 or more
================================== ============================================ ================
"""

from typing import TYPE_CHECKING

from kinkcheck.lazy import import_when_used
from kinkcheck.networks.catalogue import INITIALISATIONS, NAMES

if TYPE_CHECKING:
    from kinkcheck.networks.building import build
    from kinkcheck.networks.densenet import DenseNet121
    from kinkcheck.networks.initialisation import initialise
    from kinkcheck.networks.lenet import LeNet5
    from kinkcheck.networks.mlp import MLP
    from kinkcheck.networks.resnet import ResNet
    from kinkcheck.networks.vgg import VGG

__all__ = [
    "INITIALISATIONS",
    "MLP",
    "NAMES",
    "VGG",
    "DenseNet121",
    "LeNet5",
    "ResNet",
    "build",
    "initialise",
]

import_when_used(
    __name__,
    "kinkcheck.networks.building:build",
    "kinkcheck.networks.densenet:DenseNet121",
    "kinkcheck.networks.initialisation:initialise",
    "kinkcheck.networks.lenet:LeNet5",
    "kinkcheck.networks.mlp:MLP",
    "kinkcheck.networks.resnet:ResNet",
    "kinkcheck.networks.vgg:VGG",
)
