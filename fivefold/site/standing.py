"""What a site holds every sum of a study to: the study's own roster and thresholds, and whom it recognises itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fivefold.auth.keys import fingerprint
from fivefold.errors import StudyInvalid
from fivefold.privacy.secagg.thresholds import Thresholds
from fivefold.protocol.messages import Roster


@dataclass(frozen=True)
class Standing:
    """What a site brings to every run of one signed study."""

    study: str
    """The study's digest, hex."""
    roster: Roster
    """All sites of the signed study; never a list that a coordinator sends."""
    site: str
    private: bytes = field(repr=False)
    """The node's Ed25519 key."""
    thresholds: Thresholds
    """From the signed study alone."""
    recognised: frozenset[str]
    """Fingerprints of the keys that this site's own policy knows; others count toward no minimum. Its own always counts."""
    needed: int = 0
    """Where this site's policy wants more survivors than the study."""
    smallest: int | None = None
    """Where buffers are to be filled: the fewest survivors that any of the study's sums needs."""
    site_totals: bool = False
    """Whether the custodian permits that this site's own totals show."""

    def __post_init__(self) -> None:
        if self.thresholds.n != len(self.roster.names) or self.site not in self.roster:
            raise StudyInvalid("the thresholds, the roster and this site do not belong to one study")

    def counted(self, names: Iterable[str]) -> int:
        """How many of these sites count toward a minimum."""
        return sum(n == self.site or fingerprint(self.roster.key(n)) in self.recognised for n in names)

    @property
    def wanted(self) -> int:
        """Recognised sites that must be in every sum: the stricter of study and policy."""
        return max(self.thresholds.survivors_needed, self.needed)

    @property
    def listed(self) -> int:
        """Recognised sites that must be in a key list, before it is known whether a buffer is filled."""
        return self.wanted if self.smallest is None else min(self.smallest, self.wanted)
