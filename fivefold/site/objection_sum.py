"""This site's part in the secure sum of objections to a release: its key, and its word under masks.

The key follows from the site's own secret and the asking, so nothing lies between the two steps. A word that was given is kept
and given again as it was: after a release in between the same masks over another word would show both.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

from fivefold.errors import FivefoldError
from fivefold.governance.objection_sum import Asking, masked, offered, read_keys
from fivefold.replay.roster import roster_of
from fivefold.site.folder import SiteFolder
from fivefold.site.release_ledger import Proposed, given, keep, verdict
from fivefold.study.digest import SignedStudy


def asking_of(found: SignedStudy, proposed: Proposed, nonce: str) -> Asking:
    """What a site is asked about a proposal."""
    return Asking(found.digest, proposed.identity, nonce)


def objection_key(site: SiteFolder, asking: Asking) -> bytes:
    """The first step: this site's key for the asking, signed. No row is read for it."""
    return offered(asking, site.name(), _private(site, asking), site.node_key())


def objection(
    site: SiteFolder,
    found: SignedStudy,
    proposed: Proposed,
    nonce: str,
    keys: Mapping[str, bytes],
    *,
    now: datetime | None = None,
) -> bytes:
    """The second step: whether this site objects, under its masks, signed. A site that may not or cannot judge objects.

    Raises `ProtocolViolation` where a key is missing or another's, and then nothing was judged.
    """
    now = now or datetime.now(UTC)
    asking, roster, name = asking_of(found, proposed, nonce), roster_of(found.study), site.name()
    _, listed = read_keys(asking, keys, roster)
    before = given(site, now, f"{nonce} {asking.proposal} {listed}")
    if before is not None:
        return before
    try:
        objects = verdict(site, found, proposed, now=now)
    except FivefoldError as error:
        objects = True
        with site.audit() as log:
            log.write("release verdict refused", study=found.digest, proposal=asking.proposal, **error.public())
    word = masked(asking, name, objects, _private(site, asking), site.node_key(), keys, roster)
    keep(site, now, f"{nonce} {asking.proposal} {listed}", word)
    return word


def _private(site: SiteFolder, asking: Asking) -> bytes:
    words = "\0".join(("objection key", asking.study, asking.proposal, asking.nonce))
    return hmac.digest(site.secret(), words.encode(), "sha256")
