"""Safe settings: where and how is it computed? Which engine carries the questions, which code reads the rows, what protects.

An engine says of itself what the site cannot see from inside (`Surroundings`); code and release are read from the installation.
The privacy floors are the policy's own rules (`governance/policy.py`), told here by name with what the study asks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import fivefold
from fivefold.errors import StatementInvalid
from fivefold.governance.installation import installed
from fivefold.governance.method_code import files_of_study
from fivefold.governance.policy import Decision, Policy
from fivefold.protocol.encoding import digest
from fivefold.study.definition import Study

FLOORS = ("minimum_persons", "minimum_sites", "minimum_difference", "colluders", "honest")


@dataclass(frozen=True)
class Surroundings:
    """What an engine says of how it works at this site. `network`: whether the process that computes can reach one;
    `encrypted`: whether messages come over TLS or never leave the machine."""

    engine: str
    network: bool
    encrypted: bool


SURROUNDINGS = {
    "local": Surroundings("local", network=True, encrypted=True),
    "flower": Surroundings("flower", network=False, encrypted=True),
    "flare": Surroundings("flare", network=True, encrypted=False),
    "substra": Surroundings("substra", network=True, encrypted=False),
}
"""What each engine can claim here. Local: nothing travels. Flower: the node's parent speaks TLS alone, and the process that
computes gave up its network. FLARE and Substra: their operators set up TLS, which cannot be seen from inside; not claimed."""
LOCAL = SURROUNDINGS["local"]


def judge(policy: Policy, study: Study, around: Surroundings | None = None) -> list[Decision]:
    """What the site says to the study's settings; what only an engine knows is left out where there is none yet."""
    return [*_floors(policy, study), *_code(policy, study), *(_carried(policy, around) if around is not None else ())]


def _floors(policy: Policy, study: Study) -> Iterator[Decision]:
    if policy.tier is not None:
        words = f"the asset {policy.asset} is held at the tier {policy.tier}, and every condition of it stands in the policy"
        yield Decision(True, "tier", policy.line("tier"), words)
    for rule in FLOORS:
        asked, floor = getattr(study.privacy, rule), getattr(policy, rule)
        words = f"{rule}: the study has {asked}, and this site asks for at least {floor}"
        yield Decision(asked >= floor, rule, policy.line(rule), words)
    private = study.privacy.differential_privacy
    if private is None:
        words = "the study asks for exact sums"
        yield Decision(policy.exact_sums == "permitted", "exact_sums", policy.line("exact_sums"), words)
    elif policy.max_epsilon is not None:
        words = f"max_epsilon: the study has {private.epsilon:g}, and this site admits {policy.max_epsilon:g}"
        yield Decision(0 < private.epsilon <= policy.max_epsilon, "max_epsilon", policy.line("max_epsilon"), words)


def _code(policy: Policy, study: Study) -> Iterator[Decision]:
    found, release, rules = code_digest(study), fivefold.__version__, policy.settings
    if rules is None or not rules.code:
        yield Decision(True, "settings.code", 0, "the methods' code is what the custodian approves", f"sha256:{found}")
    else:
        words = "is admitted" if found in rules.code else "is not among those that this site admits"
        line = policy.line("settings.code")
        yield Decision(
            found in rules.code, "settings.code", line, f"the code of the study's methods {words}", f"sha256:{found}"
        )
    if rules is not None and rules.releases:
        words = (
            f"Fivefold {release} {'is' if release in rules.releases else 'is not'} among the releases that may read rows here"
        )
        yield Decision(release in rules.releases, "settings.releases", policy.line("settings.releases"), words)
    if rules is not None and rules.signed_by:
        yield _signed(policy, rules.signed_by)


def _signed(policy: Policy, publishers: Collection[str]) -> Decision:
    """Whether every file of this installation is one that a publisher of the policy's signed."""
    rule, line = "settings.signed_by", policy.line("settings.signed_by")
    try:
        found = installed()
    except StatementInvalid as error:
        return Decision(False, rule, line, f"this installation of Fivefold is not a signed one: {error.message}")
    known = bool(set(found.signers) & set(publishers))
    words = "a publisher that this site admits" if known else "a key that this site does not admit"
    said = f"the files of this installation, Fivefold {found.version}, are signed by {words}"
    return Decision(known, rule, line, said, f"sha256:{found.identity}")


def _carried(policy: Policy, around: Surroundings) -> Iterator[Decision]:
    rules = policy.settings
    if rules is None:
        yield Decision(True, "settings", 0, f"this site takes any engine that is installed; this one is {around.engine}")
        return
    if rules.engines:
        words = f"the engine {around.engine} {'is' if around.engine in rules.engines else 'is not'} admitted here"
        yield Decision(around.engine in rules.engines, "settings.engines", policy.line("settings.engines"), words)
    if rules.encryption:
        words = "messages are encrypted on their way" if around.encrypted else "messages travel without TLS"
        yield Decision(around.encrypted, "settings.encryption", policy.line("settings.encryption"), words)
    if rules.no_network:
        words = (
            "the process that computes can reach the network" if around.network else "the process that computes has no network"
        )
        yield Decision(not around.network, "settings.no_network", policy.line("settings.no_network"), words)


def code_digest(study: Study) -> str:
    """One digest (SHA-256, hex) over the files of a study's methods, as they are installed here."""
    return digest(sorted(files_of_study(study).items())).hex()
