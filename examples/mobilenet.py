"""A Hugging Face MobileNetV2 at 16 bits: ReLU6, whose kinks are at 0 and at 6.

The model is a narrow one from a configuration, and its images are handwritten digits, so that
nothing is fetched. A number of 16 bits is exactly 6 every now and then. PyTorch's slope there is 0,
as is that of least norm; to see what another one does::

    kinkcheck audit examples/mobilenet.py:make --precision bfloat16 --selection branch:0.5
"""

from collections.abc import Callable
from itertools import islice

from torch import Tensor, nn
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

from kinkcheck import data

Batch = dict[str, Tensor]


def make() -> tuple[nn.Module, list[Batch], Callable[[nn.Module, Batch], Tensor]]:
    """The model in training mode, two mini-batches of digits as the model takes them, the step."""
    config = MobileNetV2Config(num_channels=1, image_size=28, depth_multiplier=0.25, num_labels=10)
    model = MobileNetV2ForImageClassification(config).train()
    batches = islice(data.load("mnist-sample").batches(4, seed=0), 2)
    return model, [{"pixel_values": x, "labels": y} for x, y in batches], step


def step(model: nn.Module, batch: Batch) -> Tensor:
    """The loss that the model itself computes."""
    loss: Tensor = model(**batch).loss
    return loss
