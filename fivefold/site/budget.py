"""The privacy budget of a data asset across all studies: what was spent, and whether one more release may be.

The custodian declares the asset and its cap in site.yaml. Before a noisy answer is masked its cost is written into the ledger
(`site/budget_book.py`), durably and for good: nothing is given back, and a retry that draws the same noise is charged once.

The cap is a Rényi filter (Feldman & Zrnic, 2021, "Individual privacy accounting via a Rényi filter"; Lécuyer, 2021, "Practical
privacy filters and odometers with Rényi differential privacy"): the divergences at one order, fixed in advance, add up to at
most what still converts to the cap; it holds however studies and questions were chosen after seeing earlier answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fivefold.errors import BudgetSpent, PolicyRefuses
from fivefold.governance.policy import FILE, Policy
from fivefold.privacy.dp.events import ORDERS, Curve, Event, allowance, composed, curve, epsilon_of
from fivefold.protocol.encoding import digest
from fivefold.records.audit import AuditLog
from fivefold.site import budget_book as books
from fivefold.site.budget_book import Book

DELTA = 1e-6
"""The δ at which spending is shown where the policy declares no cap."""


@dataclass(frozen=True)
class Release:
    """What makes a noisy answer the one it is. The same release again has the same noise and costs nothing; anything else is
    charged.

    `study`, `question` and `data` are digests (hex); `scale` is the noise's deviation, in a unit that the caller holds fixed.
    `run`: the sum hides a site behind the noise of the others as well, and only within a run are the others' answers frozen
    together with this site's; a second run is a second release. `title` is for people and is no part of the identity.
    """

    study: str
    run: str
    round: int
    question: str
    roster: tuple[str, ...]
    scale: float
    data: str = ""
    title: str = ""

    @property
    def key(self) -> str:
        """SHA-256 (hex) of the identity."""
        names = ("study", "run", "round", "question", "scale", "data")
        return digest({name: getattr(self, name) for name in names} | {"roster": sorted(self.roster)}).hex()


@dataclass(frozen=True)
class Receipt:
    """A reservation that is on disk. `charged` is false for a retry; `spent` is the asset's ε after it, at `delta`."""

    charged: bool
    head: str
    spent: float
    delta: float


def ledger_of(state: Path, policy: Policy) -> Path:
    """The file of the asset's ledger."""
    if policy.budget is not None and policy.budget.ledger is not None:
        return state.parent / policy.budget.ledger
    return books.place(state, policy.asset)


def reserve(
    state: Path,
    policy: Policy,
    release: Release,
    events: Sequence[Event],
    audit: AuditLog,
    study_cap: tuple[float, float] | None = None,
) -> Receipt:
    """Charge the asset for a release, before a byte of it leaves. On disk when this returns; never given back.

    `study_cap`: the (ε, δ) that all answers of the release's study, over all its runs, may cost; asked within the same
    transaction, so that two runs at once cannot pass it together (rule `study_epsilon`).

    Raises `BudgetSpent` where the release would pass the cap (its message names the largest spender and is for the site's own
    staff; what leaves is code and rule), `PolicyRefuses` where the policy forbids exact and noisy answers on one asset,
    `LedgerBroken` for a ledger that was damaged or put back, `StorageFull`. After any of them nothing may leave.
    """
    if not events:
        raise ValueError("a release without an event")
    exact = any(e.mechanism == "exact" for e in events)
    key = digest({"exact": release.study}).hex() if exact else release.key
    with books.exclusively(ledger_of(state, policy), policy.asset, audit) as book:
        _unmixed(policy, book, exact)
        if any(e.key == key for e in book.entries):
            return _receipt(policy, book, charged=False)
        new = books.entry(key, release.study, release.title, release.run, release.round, tuple(events))
        if not exact:
            _within_study(book, new, study_cap)
            _affordable(policy, book, new, audit)
        after = books.written(book, new, audit, study=release.study, run=release.run, round=release.round)
        return _receipt(policy, after, charged=True)


def mark_exact(state: Path, policy: Policy, release: Release, audit: AuditLog) -> Receipt:
    """Mark the asset: it gave exact sums, for which no ε is finite. Once for each study. Raises what `reserve` raises."""
    return reserve(state, policy, release, (Event("exact"),), audit)


def curve_of(entries: Iterable[books.Entry]) -> Curve:
    """The composed curve of the noisy events of entries; exact ones are marks, not costs."""
    times: Counter[Event] = Counter()
    for entry in entries:
        for event in entry.events:
            if event.mechanism != "exact":
                times[replace(event, count=1) if event.count > 1 else event] += event.count
    return composed(curve(replace(event, count=count)) for event, count in times.items())


def filter_order(epsilon: float, delta: float) -> int:
    """The place in `ORDERS` of the order at which the filter counts: where the cap admits most Gaussian releases.

    Gaussian curves are straight lines through 0, so *some* order stays under its allowance exactly if this one does; it depends
    on the cap alone, as the filter's theorem wants.
    """
    return int(np.argmax(allowance(epsilon, delta) / np.array(ORDERS)))


def admits(epsilon: float, delta: float, total: Curve) -> bool:
    """May releases of this composed curve be made under a cap of (epsilon, delta)?"""
    at = filter_order(epsilon, delta)
    return bool(total[at] <= allowance(epsilon, delta)[at])


def spent(policy: Policy, book: Book) -> tuple[float, float]:
    """(ε, δ) of all noisy releases of the asset, at the cap's δ."""
    delta = policy.budget.delta if policy.budget is not None else DELTA
    return epsilon_of(curve_of(book.entries), delta), delta


def _receipt(policy: Policy, book: Book, *, charged: bool) -> Receipt:
    epsilon, delta = spent(policy, book)
    return Receipt(charged, book.head, epsilon, delta)


def _unmixed(policy: Policy, book: Book, exact: bool) -> None:
    if policy.mix_exact_and_noisy == "permitted":
        return
    marked = {e.mechanism == "exact" for entry in book.entries for e in entry.events}
    if (not exact) in marked:
        was, now = ("noisy", "exact") if exact else ("exact", "noisy")
        rule = "mix_exact_and_noisy"
        raise PolicyRefuses(
            f"{FILE}, line {policy.line(rule)}, rule {rule}: the asset {policy.asset} gave {was} answers, so it gives no {now} "
            "ones",
            rule=rule,
        )


def _within_study(book: Book, new: books.Entry, cap: tuple[float, float] | None) -> None:
    if cap is None:
        return
    epsilon, delta = cap
    if epsilon_of(curve_of([*(e for e in book.entries if e.study == new.study), new]), delta) > epsilon:
        raise BudgetSpent(
            f"the study's answers, over all its runs, would cost more than its ε = {epsilon:g}",
            rule="study_epsilon",
            help="The study's ε is a promise to the persons in the data; another study needs another approval.",
        )


def _affordable(policy: Policy, book: Book, new: books.Entry, audit: AuditLog) -> None:
    cap = policy.budget
    if cap is None or admits(cap.epsilon, cap.delta, curve_of((*book.entries, new))):
        return
    before, _ = spent(policy, book)
    asked = epsilon_of(curve_of((new,)), cap.delta)
    most = max(by_study(book, cap.delta), key=lambda s: s.epsilon, default=None)
    spender = f"; most of it went to {most.name} (ε = {most.epsilon:.3g})" if most is not None else ""
    sentence = (
        f"{FILE}, line {policy.line('budget')}, rule budget: the asset {policy.asset} has spent ε = {before:.3g} of "
        f"{cap.epsilon:g} at δ = {cap.delta:g}{spender}, and this answer, which alone costs ε = {asked:.3g}, would pass the cap"
    )
    audit.write("budget refused", asset=policy.asset, study=new.study, run=new.run, round=new.round, sentence=sentence)
    raise BudgetSpent(sentence, rule="budget")


@dataclass(frozen=True)
class Spending:
    """What one study took: how many noisy answers, of which ε alone (at the δ that was asked), and whether exact sums, too."""

    study: str
    title: str
    answers: int
    epsilon: float
    exact: bool
    first: str
    last: str

    @property
    def name(self) -> str:
        return f"the study “{self.title}”" if self.title else f"the study {self.study[:16]}…"


def by_study(book: Book, delta: float) -> tuple[Spending, ...]:
    """Each study's spending, in the order of its first charge."""
    studies: dict[str, list[books.Entry]] = {}
    for entry in book.entries:
        studies.setdefault(entry.study, []).append(entry)
    return tuple(_spending(study, entries, delta) for study, entries in studies.items())


def _spending(study: str, entries: Sequence[books.Entry], delta: float) -> Spending:
    noisy = [e for e in entries if all(v.mechanism != "exact" for v in e.events)]
    return Spending(
        study,
        next((e.title for e in reversed(entries) if e.title), ""),
        len(noisy),
        epsilon_of(curve_of(noisy), delta),
        len(noisy) < len(entries),
        min(e.time for e in entries),
        max(e.time for e in entries),
    )
