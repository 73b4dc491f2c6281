"""LeNet-5."""

from torch import Tensor, nn

from kinkcheck.errors import InputError


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and max pooling.

    Two rounds of 5×5 convolution (6, then 16 channels), ReLU, 2×2 max pool, [batch norm]; then
    linear layers to 120, 84 and ``classes``, with ReLU, [batch norm] between them. Identities stand
    in for absent batch norms, so that a layer has one name in both variants: the pools are
    ``features.2`` and ``features.6``.

    Source: R. Boustany (TMLR 2024), whose batch norm likewise comes after the pool; the shape goes
    back to Y. LeCun et al., Proc. IEEE 1998.

    Args:
        in_channels: Channels of an image.
        classes: Length of an output.
        image_size: Side s of an image in pixels, 16 or more; the features of an image are
            16 × t × t with t = ⌊(⌊(s − 4) / 2⌋ − 4) / 2⌋.
        batch_norm: Whether the batch norms are there.

    Raises:
        InputError: If the image is too small.

    Shapes: (batch, in_channels, s, s) → (batch, classes).

    >>> import torch
    >>> network = LeNet5(in_channels=1, classes=10, image_size=28)
    >>> network(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    >>> network.features[2]
    MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
    """

    def __init__(
        self, *, in_channels: int, classes: int, image_size: int, batch_norm: bool = False
    ) -> None:
        super().__init__()
        if image_size < 16:
            raise InputError(f"image_size must be 16 or more for lenet5, not {image_size}")
        side = ((image_size - 4) // 2 - 4) // 2
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(6) if batch_norm else nn.Identity(),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(16) if batch_norm else nn.Identity(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * side * side, 120),
            nn.ReLU(),
            nn.BatchNorm1d(120) if batch_norm else nn.Identity(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.BatchNorm1d(84) if batch_norm else nn.Identity(),
            nn.Linear(84, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images to class scores."""
        scores: Tensor = self.classifier(self.features(images).flatten(1))
        return scores
