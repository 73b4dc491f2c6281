"""What is measured at a point, and what is concluded."""

from kinkcheck.audit.document import AuditDocument, Settings, conclude, read_document
from kinkcheck.audit.picture import TiesPicture
from kinkcheck.audit.report import AuditReport, LeftOut, SiteCount, UnseenCount
from kinkcheck.audit.run import audit
from kinkcheck.audit.summary import Spread, Summary, ZoneShare, summarise
from kinkcheck.audit.sweep import smallest_precision
from kinkcheck.audit.verification import Verified, verify
from kinkcheck.audit.volume import Volume, estimate_volume
from kinkcheck.measure.records import Lift, Point
from kinkcheck.measure.standing.records import Along, Kind, Standing
from kinkcheck.measure.variation import Variation, gradient_variation
from kinkcheck.measure.zones import Zone

__all__ = [
    "Along",
    "AuditDocument",
    "AuditReport",
    "Kind",
    "LeftOut",
    "Lift",
    "Point",
    "Settings",
    "SiteCount",
    "Spread",
    "Standing",
    "Summary",
    "TiesPicture",
    "UnseenCount",
    "Variation",
    "Verified",
    "Volume",
    "Zone",
    "ZoneShare",
    "audit",
    "conclude",
    "estimate_volume",
    "gradient_variation",
    "read_document",
    "smallest_precision",
    "summarise",
    "verify",
]
