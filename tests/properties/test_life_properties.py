"""Random acts in random order: no site comes to run without its own custodian's approval, whoever claims what."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.governance.life import LIVE, TABLE, Act, Life, Parties, lives

SITES = ("alder", "birch", "cedar")
STUDY, OTHER = "a" * 64, "b" * 64
LAST = "2026-12-31"
PARTIES = Parties(
    "lead", {s: f"node-{s}" for s in SITES}, {s: frozenset({f"custodian-{s}", "node-birch", "lead"}) for s in SITES},
    frozenset({"coordinator"}), frozenset({"checker"}),
)  # fmt: skip
KEYS = ("", "lead", "coordinator", "checker", "stranger", *(f"{who}-{s}" for who in ("node", "custodian") for s in SITES))
ROLES = ("lead", "custodian", "node", "coordinator", "checker", "clock")


def right_key(role: str, site: str) -> str:
    return {"custodian": f"custodian-{site}", "node": f"node-{site}", "clock": ""}.get(role, role)


@st.composite
def sequences(draw: st.DrawFn) -> list[Act]:
    """Acts in the order of their days; half of them as the table has them, the rest anything at all."""
    acts, day = [Act("propose", "lead", "lead", "", "2026-01-01T00:00:00Z", "", STUDY)], 1
    for number in range(draw(st.integers(0, 25))):
        day = min(360, day + draw(st.sampled_from((0, 0, 1, 20))))
        site = draw(st.sampled_from((*SITES, *SITES, "")))
        row = draw(st.sampled_from(TABLE))
        honest = draw(st.booleans())
        role = draw(st.sampled_from(row.by if honest else ROLES))
        key = right_key(role, site) if honest else draw(st.sampled_from(KEYS))
        study = STUDY if honest else draw(st.sampled_from((STUDY, OTHER)))
        until = draw(st.sampled_from(("", "2026-02-01", "2026-06-01", "2027-06-01")))
        acts.append(Act(row.what, role, key, "", at(day), "", study, site, until, str(number)))
    return acts


def at(day: int) -> str:
    return f"{date(2026, 1, 1) + timedelta(days=day)}T12:00:00Z"


def stands(acts: list[Act], site: str, day: str) -> bool:
    """Told in another way than the machine does: has this site's own custodian approved this very study, and is a day left?"""
    own = ("custodian", f"custodian-{site}", site, STUDY, "approve")
    given = [a for a in acts if (a.role, a.key, a.site, a.study, a.what) == own]
    return any(min(a.until or LAST, LAST) >= day for a in given)


@given(sequences())
@settings(max_examples=150, deadline=None)
def test_nobody_runs_without_the_sites_own_approval(acts: list[Act]) -> None:
    for n in range(1, len(acts) + 1):
        day = acts[n - 1].at[:10]
        for site, life in lives(STUDY, SITES, acts[:n], PARTIES, last=LAST, today=day).items():
            if life.state == "running":
                assert stands(acts[:n], site, day)
            began = [i for i, a in enumerate(life.acts) if a.what == "begin"]
            for i in began:
                before = [a for a in life.acts[:i] if a.what in ("approve", "withdraw", "refuse", "expire", "close", "review")]
                last = [a for a in before if a.what != "review"][-1]
                assert (last.what, last.role, last.key, last.site) == ("approve", "custodian", f"custodian-{site}", site)


@given(sequences())
@settings(max_examples=80, deadline=None)
def test_a_coordinator_alone_opens_nothing(acts: list[Act]) -> None:
    """With every word of a custodian's own key taken away, nothing is ever approved, however often others claim it."""
    forged = [a for a in acts if not a.key.startswith("custodian-")]
    for life in lives(STUDY, SITES, forged, PARTIES, last=LAST).values():
        assert life.state not in ("approved", *LIVE)
        assert all(a.what not in ("approve", "begin") for a in life.acts)


@given(sequences())
@settings(max_examples=80, deadline=None)
def test_every_step_is_a_row_of_the_table_and_what_is_void_moves_nothing(acts: list[Act]) -> None:
    for life in lives(STUDY, SITES, acts, PARTIES, last=LAST).values():
        state: Any = "draft"
        for act in life.acts:
            (row,) = [t for t in TABLE if t.what == act.what and state in t.before]
            assert act.role in row.by
            state = row.after or state
        assert state == life.state
        counted: Life = lives(STUDY, SITES, [a for a in acts if a not in [v for v, _ in life.void]], PARTIES, last=LAST)[
            life.site
        ]
        assert counted.state == life.state


def test_each_state_and_act_has_at_most_one_row() -> None:
    states = {s for t in TABLE for s in t.before}
    for what in {t.what for t in TABLE}:
        for state in states:
            assert len([t for t in TABLE if t.what == what and state in t.before]) <= 1
    assert not [t for t in TABLE if "closed" in t.before]
