"""A monitor for a training loop: ties and gradient variation every n steps, the run unchanged.

>>> from torch.nn import functional as F
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
>>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
>>> monitor = Monitor(model, F.cross_entropy, every=10)
>>> for _ in range(30):
...     x, y = torch.randn(8, 4), torch.randint(2, (8,))
...     optimizer.zero_grad()
...     F.cross_entropy(model(x), y).backward()
...     record = monitor.step(x, y)
...     optimizer.step()
>>> [record.step for record in monitor.records]
[0, 10, 20]

Adapters for Lightning and for the Trainer of Hugging Face are in :mod:`kinkcheck.monitor.lightning`
and :mod:`kinkcheck.monitor.transformers`.
"""

from kinkcheck.monitor.measure import Record, SiteTies
from kinkcheck.monitor.monitor import Monitor

__all__ = ["Monitor", "Record", "SiteTies"]
