"""Is your gradient right where your network is not differentiable?

>>> import kinkcheck
>>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.MaxPool2d(2))
>>> with kinkcheck.record(model) as tape:
...     loss = model(torch.ones(1, 1, 4, 4)).sum()
>>> native = tape.gradient(loss, choose="native")
>>> minimal = tape.gradient(loss, choose="minimal")
>>> tape.sites[0].tied
2
"""

from kinkcheck import nn
from kinkcheck.audit import AuditReport, audit
from kinkcheck.errors import InputError
from kinkcheck.tape import Site, Tape, Unseen, record

__all__ = [
    "AuditReport",
    "InputError",
    "Site",
    "Tape",
    "Unseen",
    "audit",
    "nn",
    "record",
]
