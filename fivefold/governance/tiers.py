"""Control tiers: how closely an asset is held, by one word, and what a policy then has to ask for.

The word does nothing by itself: a `site.yaml` that names a tier and leaves one of its conditions out does not parse, so that
the tier that stands in a signed policy is the tier that is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fivefold.governance.policy import Policy

Tier = Literal["open", "controlled", "restricted"]
Condition = tuple[str, Callable[["Policy"], bool]]

CONTROLLED: tuple[Condition, ...] = (
    ("people.required: [lead, checker]", lambda p: p.people is not None and {"lead", "checker"} <= set(p.people.required)),
    ("projects.reviewers: 1 or more", lambda p: p.projects is not None and p.projects.reviewers >= 1),
    ("settings.encryption: true", lambda p: p.settings is not None and p.settings.encryption),
    ("a `budget`", lambda p: p.budget is not None),
)
RESTRICTED: tuple[Condition, ...] = (
    *CONTROLLED,
    ("people.training for checker", lambda p: p.people is not None and any("checker" in t.roles for t in p.people.training)),
    ("people.terms", lambda p: p.people is not None and p.people.terms is not None),
    (
        "projects.reviewers: 2 or more, of 2 organisations or more",
        lambda p: p.projects is not None and p.projects.reviewers >= 2 and p.projects.organisations >= 2,
    ),
    ("settings.no_network: true", lambda p: p.settings is not None and p.settings.no_network),
    ("data.deidentification", lambda p: p.data is not None and p.data.deidentification is not None),
    ("site_totals: refused", lambda p: p.site_totals == "refused"),
    ("user_models: refused", lambda p: p.user_models == "refused"),
    ("minimum_persons: 10 or more", lambda p: p.minimum_persons >= 10),
)
TIERS: Mapping[Tier, tuple[Condition, ...]] = {"open": (), "controlled": CONTROLLED, "restricted": RESTRICTED}
"""Each tier asks for all that the one before it asks for, and more."""


def lacking(policy: Policy) -> tuple[str, ...]:
    """What the policy's own tier asks for and the policy does not; nothing where it names no tier."""
    return () if policy.tier is None else tuple(words for words, holds in TIERS[policy.tier] if not holds(policy))
