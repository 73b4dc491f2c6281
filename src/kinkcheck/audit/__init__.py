"""What is measured at a point, and what is concluded."""

from kinkcheck.audit.document import AuditDocument, conclude, read_document
from kinkcheck.audit.report import AuditReport, Point, SiteCount, UnseenCount
from kinkcheck.audit.run import audit
from kinkcheck.audit.summary import Summary, summarise
from kinkcheck.audit.sweep import smallest_precision
from kinkcheck.audit.variation import Variation, gradient_variation
from kinkcheck.audit.volume import Volume, estimate_volume

__all__ = [
    "AuditDocument",
    "AuditReport",
    "Point",
    "SiteCount",
    "Summary",
    "UnseenCount",
    "Variation",
    "Volume",
    "audit",
    "conclude",
    "estimate_volume",
    "gradient_variation",
    "read_document",
    "smallest_precision",
    "summarise",
]
