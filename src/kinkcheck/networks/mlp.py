"""Fully connected ReLU networks."""

from torch import Tensor, nn

from kinkcheck.errors import InputError


class MLP(nn.Module):
    """A fully connected ReLU network on flattened images.

    ``depth`` hidden layers of ``width`` neurons, each linear, [batch norm], ReLU; then a linear
    layer to ``classes``.

    Source: D. Bertoin et al. (NeurIPS 2021), MNIST: width 256 and depth 3 where the volume is
    estimated (varied one at a time), width 2048 and depth 3 where networks are trained.

    Args:
        width: Neurons in a hidden layer, 1 or more.
        depth: Hidden layers, 1 or more.
        in_channels: Channels of an image.
        classes: Length of an output.
        image_size: Side s of an image in pixels, 1 or more.
        batch_norm: Whether the batch norms are there.

    Raises:
        InputError: If width, depth or image size is below 1.

    Shapes: (batch, in_channels, s, s) → (batch, classes).

    >>> MLP(256, 1, in_channels=1, classes=10, image_size=28).layers
    Sequential(
      (0): Linear(in_features=784, out_features=256, bias=True)
      (1): ReLU()
      (2): Linear(in_features=256, out_features=10, bias=True)
    )
    """

    def __init__(
        self,
        width: int,
        depth: int,
        *,
        in_channels: int,
        classes: int,
        image_size: int,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        for argument, value in {"width": width, "depth": depth, "image_size": image_size}.items():
            if value < 1:
                raise InputError(f"{argument} must be 1 or more for mlp, not {value}")
        self.layers = nn.Sequential()
        inputs = in_channels * image_size * image_size
        for _ in range(depth):
            self.layers.append(nn.Linear(inputs, width))
            if batch_norm:
                self.layers.append(nn.BatchNorm1d(width))
            self.layers.append(nn.ReLU())
            inputs = width
        self.layers.append(nn.Linear(inputs, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Images to class scores."""
        scores: Tensor = self.layers(images.flatten(1))
        return scores
