"""What is measured at a point, and what is concluded."""

from kinkcheck.audit.counts import LeftOut, SiteCount, UnseenCount
from kinkcheck.audit.headline import Answer, Headline, headline
from kinkcheck.audit.picture import TiesPicture
from kinkcheck.audit.report import AuditReport, Settings, load
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
    "Answer",
    "AuditReport",
    "Headline",
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
    "estimate_volume",
    "gradient_variation",
    "headline",
    "load",
    "smallest_precision",
    "summarise",
    "verify",
]
