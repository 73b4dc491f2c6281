"""How much time does a training epoch take, against the ordinary PyTorch loop?

LeNet-5, float32, SGD, batches of 128 of the same real digits:

* the ordinary loop: a DataLoader with two workers that turns each image from a PIL image into a
  normalised tensor, as torchvision's MNIST with ToTensor and Normalize does, and torch.nn's pools;
* a study's epoch: images on the device as tensors, and kinkcheck.nn's pools under a selection.

Testing and probing are left out of both. The second row has both loops on one thread.

    python benchmarks/study.py [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kinkcheck import data, networks
from kinkcheck.arithmetic.precision import parse
from kinkcheck.data import ImageSet
from kinkcheck.study.classification import ImageClassification
from kinkcheck.study.determinism import deterministic
from kinkcheck.study.learner import Learner
from kinkcheck.study.model import build
from kinkcheck.study.settings import Classification
from kinkcheck.study.spec import shipped
from timing import medians, table, where


class PerSample(Dataset[tuple[Tensor, int]]):
    """Images that are transformed one by one."""

    def __init__(self, images: ImageSet) -> None:
        self.pixels = images.images[:, 0].numpy()
        self.labels = images.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.pixels[index])
        tensor = torch.from_numpy(np.array(image, copy=True)).view(28, 28, 1)
        tensor = tensor.permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        mean, std = torch.tensor([0.5]), torch.tensor([0.5])
        return tensor.clone().sub_(mean[:, None, None]).div_(std[:, None, None]), self.labels[index]


def ordinary(images: ImageSet) -> Callable[[], None]:
    network = networks.build("lenet5", in_channels=1, classes=10, image_size=28)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(PerSample(images), batch_size=128, shuffle=True, num_workers=2)

    def epoch() -> None:
        network.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x), y)
            loss.backward()
            optimizer.step()
            loss.item()

    return epoch


def study(images: ImageSet) -> Callable[[], None]:
    settings = shipped("mnist-lenet5-small").model_copy(
        update={"precision": ("float32",), "selections": {"max_pool": ("hybrid:10",)}}
    )
    trial = settings.trials()[0]
    assert isinstance(trial.task, Classification)
    task = ImageClassification(trial.task, images, images, "")
    feed = task.feed("train", parse("32"), "cpu")
    learner = Learner(build(trial, task, "cpu"), task, trial, 0.01)

    def epoch() -> None:
        with deterministic("cpu", torch.get_num_threads(), 0):
            learner.begin_epoch()
            for batch, samples in feed.epoch(trial.batch_size, 1, 0, 0):
                learner.step(batch, samples)
            copy.copy(learner).end_epoch()

    return epoch


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="real MNIST; by default the bundled 4,000 digits")
    folder = parser.parse_args().data_dir
    digits = data.load("mnist", data_dir=folder) if folder else data.load("mnist-sample")
    rows = table(
        f"LeNet-5, an epoch of {len(digits):,} digits; {where()}",
        ["threads"],
        ["ordinary s", "study s", "ratio"],
    )
    for threads in dict.fromkeys((torch.get_num_threads(), 1)):
        torch.set_num_threads(threads)
        before, now = medians(ordinary(digits), study(digits), repeats=3)
        rows.add_row(str(threads), f"{before:.2f}", f"{now:.2f}", f"{before / now:.2f}")
    Console(width=100).print(rows)
