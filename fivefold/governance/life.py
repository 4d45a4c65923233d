"""A study's life, site by site: one table of what may follow what, by whom. Pure: no file, no clock, no key is touched here.

    draft → proposed → under review → approved → running → outputs held → released → closed
                            └→ refused      └───── withdrawn, expired ─────┘

Nothing is stored as a state. Signed statements and entries of signed logs are *acts*; played in order through the table they
come to a state, at the site and at the coordinator alike. An act that has no row, comes from another role's key, or is about
another digest does not count, and is named by its rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from fivefold.errors import NotApproved

State = Literal[
    "draft", "proposed", "under review", "approved", "running", "outputs held", "released", "closed", "refused", "withdrawn",
    "expired",
]  # fmt: skip
Role = Literal["lead", "custodian", "node", "coordinator", "checker", "clock"]
What = Literal[
    "propose", "review", "counter", "refuse", "approve", "withdraw", "expire", "begin", "stop", "hold", "release", "recall",
    "close",
]  # fmt: skip
BEFORE: tuple[State, ...] = ("proposed", "under review")
LIVE: tuple[State, ...] = ("running", "outputs held", "released")


class Transition(NamedTuple):
    """One row: who may do what, from which states, and the state after it (None: the same as before)."""

    what: What
    by: tuple[Role, ...]
    before: tuple[State, ...]
    after: State | None


TABLE: tuple[Transition, ...] = (
    Transition("propose", ("lead",), ("draft",), "proposed"),
    Transition("review", ("custodian", "node"), ("proposed", "refused", "withdrawn", "expired"), "under review"),
    Transition("review", ("custodian", "node"), ("under review", "approved", *LIVE), None),
    Transition("counter", ("custodian",), BEFORE, "under review"),
    Transition("refuse", ("custodian",), BEFORE, "refused"),
    Transition("approve", ("custodian",), (*BEFORE, "refused", "withdrawn", "expired", "approved"), "approved"),
    Transition("approve", ("custodian",), LIVE, None),
    Transition("begin", ("coordinator", "node"), ("approved", *LIVE), "running"),
    Transition("stop", ("coordinator",), ("running",), "approved"),
    Transition("hold", ("coordinator", "node"), ("running",), "outputs held"),
    Transition("release", ("coordinator", "node"), ("outputs held", "released"), "released"),
    Transition("recall", ("lead", "checker"), ("released",), "outputs held"),
    Transition("withdraw", ("custodian",), ("approved", *LIVE, "expired", "withdrawn"), "withdrawn"),
    Transition("expire", ("clock",), (*BEFORE, "approved", "running"), "expired"),
    Transition(
        "close", ("lead", "custodian", "node"), (*BEFORE, "approved", *LIVE, "refused", "withdrawn", "expired"), "closed"
    ),
)
"""All that can happen. What has no row here cannot."""


@dataclass(frozen=True)
class Act:
    """One thing that somebody did: who (role, key, name), when (RFC 3339), why, on which study (digest, hex).

    `site` is whose life it is; empty for all sites. `until`: an approval's last day (ISO). `proof` is the digest of the signed
    statement, or the hash of the signed log's entry, in which it stands.
    """

    what: What
    role: Role
    key: str
    who: str
    at: str
    why: str
    study: str
    site: str = ""
    until: str = ""
    proof: str = ""


@dataclass(frozen=True)
class Parties:
    """Whose key is whose (hex). A key that a study gives to somebody else is no custodian's, whatever a list says."""

    lead: str
    nodes: Mapping[str, str]
    custodians: Mapping[str, frozenset[str]]
    coordinators: frozenset[str] = frozenset()
    checkers: frozenset[str] = frozenset()

    def holds(self, role: Role, key: str, site: str) -> bool:
        """Whether a key speaks for a role (at a site)."""
        if role == "custodian":
            others = {self.lead, *self.nodes.values(), *self.coordinators}
            return key in self.custodians.get(site, frozenset()) and key not in others
        if role == "node":
            return key == self.nodes.get(site)
        owners = {"lead": frozenset({self.lead}), "coordinator": self.coordinators, "checker": self.checkers}
        return key in owners.get(role, frozenset({""}))


@dataclass(frozen=True)
class Life:
    """One site's part in one study: its state, the acts that led to it, and those that did not count, each with its rule."""

    site: str
    study: str
    last: str = ""
    """The study's own last day (ISO); after it nothing is approved or run."""
    state: State = "draft"
    until: str = ""
    """The last day of the approval in force."""
    acts: tuple[Act, ...] = ()
    void: tuple[tuple[Act, str], ...] = field(default=())


def after(state: State, what: What) -> State:
    """The state that an act leads to. Raises `NotApproved`, rule `life_WHAT`, where the table has no such row."""
    row = next((t for t in TABLE if t.what == what and state in t.before), None)
    if row is None:
        roles = {role for t in TABLE if t.what == what for role in t.by}
        known = ", ".join(dict.fromkeys(t.what for t in TABLE if state in t.before and roles & {*t.by})) or "nothing more"
        raise NotApproved(
            f"a study that is {state} cannot be followed by `{what}`",
            rule=f"life_{what}",
            help=f"Possible now, for whoever asked this: {known}.",
        )
    return row.after or state


def follow(life: Life, act: Act, parties: Parties) -> Life:
    """The life after one more act. Days pass by themselves: an approval whose last day is over has expired before the act.

    Raises `NotApproved`; its rule is `life_digest` (another study), `life_site` (another site's), `life_role` (not for this
    role), `life_key` (the key is not of that role) or `life_WHAT` (it cannot follow).
    """
    life = passed(life, act.at[:10])
    if act.study != life.study:
        raise NotApproved("this is about another study, or about another version of it", rule="life_digest")
    if act.site not in ("", life.site):
        raise NotApproved(f"{act.site} cannot speak for {life.site}", rule="life_site")
    if not any(t.what == act.what and act.role in t.by for t in TABLE):
        raise NotApproved(f"a {act.role} cannot {act.what}", rule="life_role")
    if not parties.holds(act.role, act.key, life.site):
        raise NotApproved(f"the key that signed `{act.what}` is not that of the {act.role}", rule="life_key")
    state = after(life.state, act.what)
    until = (act.until or life.last) if act.what == "approve" else life.until
    return passed(replace(life, state=state, until=until, acts=(*life.acts, act)), act.at[:10])


def passed(life: Life, day: str) -> Life:
    """The same life on a later day (ISO): what has a last day that is over, expired on the day after it."""
    if not day or not any(t.what == "expire" and life.state in t.before for t in TABLE):
        return life
    ends = [d for d in (life.last, life.until if life.state not in BEFORE else "") if d]
    if not ends or day <= min(ends):
        return life
    why = "the study's last day is over" if min(ends) == life.last else "the approval's last day is over"
    act = Act("expire", "clock", "", "", min(ends), why, life.study, life.site)
    return replace(life, state=after(life.state, "expire"), acts=(*life.acts, act))


def lives(
    study: str, sites: Iterable[str], acts: Iterable[Act], parties: Parties, *, last: str = "", today: str = ""
) -> dict[str, Life]:
    """Each site's life, from all acts in their order. What does not follow is kept under `void` with its rule; an act for all
    sites leaves those alone that it cannot follow."""
    found = {name: Life(name, study, last) for name in sites}
    for act in acts:
        for name in found if not act.site else [act.site] if act.site in found else []:
            try:
                found[name] = follow(found[name], act, parties)
            except NotApproved as error:
                if act.site or error.rule in ("life_key", "life_role", "life_digest"):
                    found[name] = replace(found[name], void=(*found[name].void, (act, error.rule)))
    return {name: passed(life, today) for name, life in found.items()}
