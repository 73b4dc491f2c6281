"""A regression: miles per gallon of 392 real cars, from seven numbers that describe each.

The data are the UCI set Auto MPG, which ``pip install "kinkcheck[sample]"`` brings. To train the
network under values of ReLU'(0), at 16 and 32 bits, by the root of the mean square error::

    kinkcheck study run examples/regression_study.toml --out cars
"""

import torch
from mlxtend.data import autompg_data
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from kinkcheck.study import Metric, Task


def rmse(error: Tensor) -> Tensor:
    """In miles per gallon: the root of the mean square."""
    return error.double().square().mean().sqrt()


class Cars(Task):
    """A network with two hidden layers of ReLUs.

    Args:
        width: of a hidden layer.
    """

    metrics = (Metric("rmse", rmse, larger_is_better=False),)

    def __init__(self, width: int = 32) -> None:
        numbers, consumption = (torch.from_numpy(each) for each in autompg_data())
        x = numbers[:, :7].float()  # the eighth is the name of the car
        y = consumption[:, None].float()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        train, test = order[:300], order[300:]
        x = (x - x[train].mean(0)) / x[train].std(0)
        self.mean, self.std = y[train].mean(), y[train].std()
        self.train = TensorDataset(x[train], y[train])
        self.test = TensorDataset(x[test], y[test])
        self.width = width

    def network(self) -> nn.Module:
        """It predicts how many standard deviations a car is above the mean."""
        hidden = (nn.Linear(7, self.width), nn.ReLU(), nn.Linear(self.width, self.width), nn.ReLU())
        return nn.Sequential(*hidden, nn.Linear(self.width, 1))

    def step(self, model: nn.Module, batch: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The mean square error, and each car's error in miles per gallon."""
        x, y = batch
        error = model(x) - (y - self.mean) / self.std
        return error.square().mean(), error * self.std
