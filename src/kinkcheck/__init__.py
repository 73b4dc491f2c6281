"""Is your gradient right where your network is not differentiable?

>>> import kinkcheck, torch
>>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.MaxPool2d(2))
>>> with kinkcheck.record(model) as tape:
...     loss = model(torch.ones(1, 1, 4, 4)).sum()
>>> native = tape.gradient(loss, choose="native")
>>> minimal = tape.gradient(loss, choose="minimal")
>>> tape.sites[0].tied
2
"""

from typing import TYPE_CHECKING

from kinkcheck.errors import InputError
from kinkcheck.lazy import import_when_used

if TYPE_CHECKING:
    from kinkcheck import nn, testing
    from kinkcheck.arithmetic.contractions import float32_contractions
    from kinkcheck.audit import AuditReport, audit, load
    from kinkcheck.check import CheckResult, GradientError, check
    from kinkcheck.explain import Explanation, explain
    from kinkcheck.tape import Site, Tape, Unseen, record

__all__ = [
    "AuditReport",
    "CheckResult",
    "Explanation",
    "GradientError",
    "InputError",
    "Site",
    "Tape",
    "Unseen",
    "audit",
    "check",
    "explain",
    "float32_contractions",
    "load",
    "nn",
    "record",
    "testing",
]

import_when_used(
    __name__,
    "kinkcheck.audit:AuditReport",
    "kinkcheck.audit:audit",
    "kinkcheck.audit:load",
    "kinkcheck.check:CheckResult",
    "kinkcheck.check:GradientError",
    "kinkcheck.check:check",
    "kinkcheck.explain:Explanation",
    "kinkcheck.explain:explain",
    "kinkcheck.arithmetic.contractions:float32_contractions",
    "kinkcheck.nn",
    "kinkcheck.tape:Site",
    "kinkcheck.tape:Tape",
    "kinkcheck.tape:Unseen",
    "kinkcheck.tape:record",
    "kinkcheck.testing",
)
