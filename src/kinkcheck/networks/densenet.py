"""DenseNet-121, the standard one and the published one.

Layers carry torchvision's names, so that its weights load.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kinkcheck.errors import InputError

_GROWTH = 32
_BLOCKS = (6, 12, 24, 16)

Norm = Callable[[int], nn.Module]


class DenseNet121(nn.Module):
    """DenseNet-121: growth 32, four dense blocks of 6, 12, 24 and 16 layers.

    - A stem: convolution, [batch norm], ReLU, max pool.
    - Dense blocks of layers: [batch norm], ReLU, 1×1 convolution to 128 channels, [batch norm],
      ReLU, 3×3 convolution to 32 channels, which are appended to the layer's input.
    - A transition between blocks: [batch norm], ReLU, 1×1 convolution to half the channels, 2×2
      average pool.
    - The end: [batch norm], ReLU, global average pool, linear layer.

    Without batch norm, identities take its place and convolutions still have no bias.

    ============ ============== ==================== =============== ============================
    variant      ``image_size`` stem convolution     max pool        batch norms, if asked for
    ============ ============== ==================== =============== ============================
    standard     to 64          3×3                  2×2             everywhere: 121
    standard     above 64       7×7, stride 2        3×3, stride 2   everywhere: 121
    published    any            7×7, stride 2        2×2             stem and end: 2
    ============ ============== ==================== =============== ============================

    Source: G. Huang et al. (CVPR 2017) for the standard one; the published one is what the code of
    R. Boustany (TMLR 2024) builds, which passes no norm layer on to its blocks and transitions.

    Args:
        in_channels: Channels of an image.
        classes: Length of an output.
        image_size: Side s of an image in pixels: 16 or more, 31 or more if published.
        batch_norm: Whether the batch norms are there.
        published: Whether to build the published variant.

    Raises:
        InputError: If the image is too small.

    Shapes: (batch, in_channels, s, s) → (batch, classes).

    >>> network = DenseNet121(in_channels=3, classes=10, image_size=32, batch_norm=True)
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    >>> network = DenseNet121(
    ...     in_channels=3, classes=10, image_size=32, batch_norm=True, published=True
    ... )
    >>> [name for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    ['features.norm0', 'features.norm5']
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        image_size: int,
        batch_norm: bool = False,
        published: bool = False,
    ) -> None:
        super().__init__()
        smallest, name = (31, "densenet121-published") if published else (16, "densenet121")
        if image_size < smallest:
            raise InputError(f"image_size must be {smallest} or more for {name}, not {image_size}")
        end_norm: Norm = nn.BatchNorm2d if batch_norm else nn.Identity
        inner_norm: Norm = nn.Identity if published else end_norm

        channels = 64
        self.features = nn.Sequential()
        if published or image_size > 64:
            conv0 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        else:
            conv0 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.features.add_module("conv0", conv0)
        self.features.add_module("norm0", end_norm(channels))
        self.features.add_module("relu0", nn.ReLU())
        if image_size > 64 and not published:
            self.features.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1))
        else:
            self.features.add_module("pool0", nn.MaxPool2d(2))
        for index, layers in enumerate(_BLOCKS, start=1):
            if index > 1:
                transition = _Transition(channels, inner_norm)
                self.features.add_module(f"transition{index - 1}", transition)
                channels //= 2
            block = nn.Sequential()
            for layer in range(1, layers + 1):
                block.add_module(f"denselayer{layer}", _DenseLayer(channels, inner_norm))
                channels += _GROWTH
            self.features.add_module(f"denseblock{index}", block)
        self.features.add_module("norm5", end_norm(channels))
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images to class scores."""
        features = self.relu(self.features(images))
        scores: Tensor = self.classifier(self.avgpool(features).flatten(1))
        return scores


class _DenseLayer(nn.Module):
    """Appends 32 channels computed from all channels so far."""

    def __init__(self, inputs: int, norm: Norm) -> None:
        super().__init__()
        bottleneck = 4 * _GROWTH
        self.norm1 = norm(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, bottleneck, 1, bias=False)
        self.norm2 = norm(bottleneck)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(bottleneck, _GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.relu1(self.norm1(x)))
        out = self.conv2(self.relu2(self.norm2(out)))
        return torch.cat([x, out], dim=1)


class _Transition(nn.Module):
    """Halves channels and resolution between two dense blocks."""

    def __init__(self, inputs: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(inputs)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(self.conv(self.relu(self.norm(x))))
        return out
