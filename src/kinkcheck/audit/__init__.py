"""What is measured at a point, and what is concluded."""

from kinkcheck.audit.report import AuditReport, Point, SiteCount, UnseenCount
from kinkcheck.audit.run import audit
from kinkcheck.audit.variation import Variation, gradient_variation

__all__ = [
    "AuditReport",
    "Point",
    "SiteCount",
    "UnseenCount",
    "Variation",
    "audit",
    "gradient_variation",
]
