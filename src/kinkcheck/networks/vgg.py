"""VGG for images of 32 × 32 pixels."""

from torch import Tensor, nn

from kinkcheck.errors import InputError

# Widths of the convolutions before each of the five pools. VGG 11 to 19 are configurations A, B, D
# and E of K. Simonyan and A. Zisserman (ICLR 2015), with one linear layer for their three: hence
# n − 3 convolutions. VGG 9 is not in that paper; this row is the code's of R. Boustany (TMLR 2024).
_WIDTHS = {
    9: ((64,), (128,), (256,), (512,), (512,)),
    11: ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
    13: ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2),
    16: ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}


class VGG(nn.Module):
    """VGG 9, 11, 13, 16 or 19 for images of 32 × 32 pixels.

    Five groups of 3×3 convolutions (padding 1), each followed by [batch norm], ReLU, with a 2×2 max
    pool at the end of the group; then one linear layer from 512 features to ``classes``.

    Source: R. Boustany (TMLR 2024) and D. Bertoin et al. (NeurIPS 2021), after K. Simonyan and A.
    Zisserman (ICLR 2015). VGG n has n − 3 convolutions, except that VGG 9 has five, one a group, as
    in the code of R. Boustany.

    Args:
        layers: The n in VGG n.
        in_channels: Channels of an image.
        classes: Length of an output.
        image_size: Side s of an image in pixels, 32 to 63: five pools must leave one pixel.
        batch_norm: Whether the batch norms are there.

    Raises:
        InputError: If there is no VGG n or the image does not fit it.

    Shapes: (batch, in_channels, s, s) → (batch, classes).

    >>> import torch
    >>> network = VGG(11, in_channels=3, classes=10, image_size=32)
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    >>> sum(isinstance(layer, nn.Conv2d) for layer in network.features)
    8
    """

    def __init__(
        self,
        layers: int,
        *,
        in_channels: int,
        classes: int,
        image_size: int,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if layers not in _WIDTHS:
            raise InputError(f"layers must be one of 9, 11, 13, 16, 19 for a VGG, not {layers}")
        if not 32 <= image_size <= 63:
            raise InputError(f"image_size must be 32 to 63 for vgg{layers}, not {image_size}")
        self.features = nn.Sequential()
        inputs = in_channels
        for group in _WIDTHS[layers]:
            for width in group:
                self.features.append(nn.Conv2d(inputs, width, kernel_size=3, padding=1))
                if batch_norm:
                    self.features.append(nn.BatchNorm2d(width))
                self.features.append(nn.ReLU())
                inputs = width
            self.features.append(nn.MaxPool2d(2))
        self.classifier = nn.Linear(512, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images to class scores."""
        scores: Tensor = self.classifier(self.features(images).flatten(1))
        return scores
