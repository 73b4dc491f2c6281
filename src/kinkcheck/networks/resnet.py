"""ResNet 18, 34 and 50, with a stem for small images and one for ImageNet.

Layers carry torchvision's names, so that its weights load; only the ReLUs are numbered, because
each is a module of its own here.
"""

from collections.abc import Callable

from torch import Tensor, nn

from kinkcheck.errors import InputError

Norm = Callable[[int], nn.Module]


class ResNet(nn.Module):
    """ResNet 18, 34 or 50.

    Stem, max pool, four stages of residual blocks with 64, 128, 256, 512 channels (four times as
    many leave a block of ResNet 50), global average pool, one linear layer. The stem is a 7×7
    convolution of stride 2 if ``image_size`` > 64 (ImageNet), else a 3×3 convolution of stride 1;
    [batch norm] and ReLU follow. Without batch norm, identities take its place and, as in the
    published code, convolutions still have no bias.

    Source: K. He et al. (CVPR 2016), with the stride of a bottleneck on its 3×3 convolution; the
    small stem as in R. Boustany (TMLR 2024) and D. Bertoin et al. (NeurIPS 2021).

    Args:
        layers: 18, 34 or 50.
        in_channels: Channels of an image.
        classes: Length of an output.
        image_size: Side s of an image in pixels, 2 or more.
        batch_norm: Whether the batch norms are there.
        stem_pool: The max pool after the stem. By default 2×2, as in the code of R. Boustany after
            either stem; ``nn.MaxPool2d(3, stride=2, padding=1)`` is that of D. Bertoin et al. and
            of torchvision.

    Raises:
        InputError: If there is no such ResNet or the image is too small.

    Shapes: (batch, in_channels, s, s) → (batch, classes).

    >>> import torch
    >>> network = ResNet(18, in_channels=3, classes=10, image_size=32)
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    >>> ResNet(18, in_channels=3, classes=1000, image_size=224).conv1
    Conv2d(3, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), bias=False)
    """

    def __init__(
        self,
        layers: int,
        *,
        in_channels: int,
        classes: int,
        image_size: int,
        batch_norm: bool = False,
        stem_pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if layers not in _STAGES:
            raise InputError(f"layers must be one of 18, 34, 50 for a ResNet, not {layers}")
        if image_size < 2:
            raise InputError(f"image_size must be 2 or more for resnet{layers}, not {image_size}")
        block, (n1, n2, n3, n4) = _STAGES[layers]
        norm: Norm = nn.BatchNorm2d if batch_norm else nn.Identity

        if image_size > 64:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = norm(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(2) if stem_pool is None else stem_pool
        self.layer1 = _stage(block, n1, 64, 64, 1, norm)
        self.layer2 = _stage(block, n2, 64 * block.expansion, 128, 2, norm)
        self.layer3 = _stage(block, n3, 128 * block.expansion, 256, 2, norm)
        self.layer4 = _stage(block, n4, 256 * block.expansion, 512, 2, norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images to class scores."""
        out = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        scores: Tensor = self.fc(self.avgpool(out).flatten(1))
        return scores


class _BasicBlock(nn.Module):
    """Two 3×3 convolutions around which the input is added back: the block of ResNet 18 and 34."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = norm(width)
        self.downsample = _shortcut(inputs, width, stride, norm)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        result: Tensor = self.relu2(out + self.downsample(x))
        return result


class _Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions around which the input is added back: the block of ResNet 50."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = norm(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = norm(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = norm(outputs)
        self.downsample = _shortcut(inputs, outputs, stride, norm)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        result: Tensor = self.relu3(out + self.downsample(x))
        return result


_Block = type[_BasicBlock] | type[_Bottleneck]

_STAGES: dict[int, tuple[_Block, tuple[int, int, int, int]]] = {
    18: (_BasicBlock, (2, 2, 2, 2)),
    34: (_BasicBlock, (3, 4, 6, 3)),
    50: (_Bottleneck, (3, 4, 6, 3)),
}


def _stage(
    block: _Block, blocks: int, inputs: int, width: int, stride: int, norm: Norm
) -> nn.Sequential:
    """A chain of blocks, the first of which changes the number of channels and the resolution."""
    first = block(inputs, width, stride, norm)
    rest = (block(block.expansion * width, width, 1, norm) for _ in range(1, blocks))
    return nn.Sequential(first, *rest)


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module:
    """The input of a block in the shape of its output."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), norm(outputs))
