"""Which threat is covered by which protection of a study, what is not covered, and what to change: read top to bottom.

Each function looks at the study's choices for one threat. What it calls covered is played by a test that docs/threat-model.md
names; what it calls open is open, whatever a site's own policy adds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from fivefold import plugins
from fivefold.algorithms.method import Method, charged
from fivefold.errors import StudyInvalid
from fivefold.governance.study_check import parsed
from fivefold.privacy.dp.accounting import multiplier_for, spent
from fivefold.privacy.dp.words import meaning, short
from fivefold.privacy.secagg.thresholds import Thresholds
from fivefold.protocol.results import ResultTable
from fivefold.replay.buffered import buffers_of
from fivefold.replay.totals import may_be_on_trust
from fivefold.study.consistency import thresholds
from fivefold.study.definition import Analysis, DifferentialPrivacy, Study

Status = Literal["covered", "in part", "open"]
RECOMMENDED_EPSILON, RECOMMENDED_DELTA = 1.0, 1e-6
"""Per person. At ε = 1 the attacks of docs/threat-model.md are at chance; at 10 they are not."""
WEAK = 3.0
"""An ε above this bounds little: an even guess becomes more than 95 % certain."""


@dataclass(frozen=True)
class Threat:
    """One threat to a study: who wants what (`who`), the protections that stand in the way with their numbers, what they leave
    open, and what to write in the study to close it. Nothing `open` means covered."""

    name: str
    who: str
    covered: tuple[str, ...]
    open: tuple[str, ...] = ()
    change: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        return "covered" if not self.open else "in part" if self.covered else "open"


@dataclass(frozen=True)
class Choices:
    """What a study chose, as the threats look at it."""

    study: Study

    @property
    def sums(self) -> Thresholds:
        return thresholds(self.study)

    @property
    def private(self) -> DifferentialPrivacy | None:
        return self.study.privacy.differential_privacy

    @cached_property
    def methods(self) -> tuple[tuple[Analysis, Method], ...]:
        return tuple((a, plugins.method(a.method)) for a in self.study.analyses)

    @property
    def trained(self) -> tuple[str, ...]:
        """Analyses that send model updates."""
        return tuple(a.name for a, m in self.methods if m.trains)

    @property
    def replies(self) -> tuple[str, ...]:
        """Steps that let out single sites' replies."""
        return tuple(dict.fromkeys(s.identity for _, m in self.methods for s in m.steps if s.leaves == "reply"))

    @cached_property
    def costs(self) -> tuple[tuple[Analysis, int, int], ...]:
        """Each analysis with its rounds and numbers a round, at most."""
        found = ((a, m.cost(parsed(self.study, a))) for a, m in self.methods)
        return tuple((a, cost.rounds, cost.numbers_per_round) for a, cost in found)

    @cached_property
    def charged(self) -> tuple[int, tuple[tuple[int, float], ...]]:
        """What differential privacy charges."""
        return charged([m.cost(parsed(self.study, a)) for a, m in self.methods])

    @property
    def rounds(self) -> int:
        return sum(rounds for _, rounds, _ in self.costs)

    @property
    def on_trust(self) -> tuple[str, ...]:
        """Analyses whose aggregates no site may be able to add up itself: what is too wide to travel again, and buffers."""
        n, buffered = len(self.study.sites), [a.name for a, m in self.methods if m.buffers]
        gathered = [a.name for a, m in self.methods if m.gathers]
        return tuple(
            a.name
            for a, _, wide in self.costs
            if a.name not in gathered and may_be_on_trust(wide, n, trains=a.name in self.trained, buffered=a.name in buffered)
        )

    @property
    def guarantee(self) -> str:
        """The study's ε in one line; empty where sums are exact."""
        return short(self.private.unit, self.private.epsilon, self.private.delta) if self.private else ""


Look = Callable[[Choices], Threat]


def curious_coordinator(it: Choices) -> Threat:
    n, need = it.sums.n, it.sums.survivors_needed
    covered = [f"secure sum: it sees the sum over at least {need} of {n} sites, never a site's own numbers (t = {it.sums.t})"]
    if it.replies:
        covered = [f"secure sum: it sees sums over at least {need} of {n} sites, but for the replies below (t = {it.sums.t})"]
    covered += [f"no total over fewer than {it.study.privacy.minimum_persons} persons comes back"]
    if it.replies:
        return Threat(
            "curious coordinator", "It keeps to the protocol, and reads everything", tuple(covered),
            (f"each site's own update reaches it and all sites ({', '.join(it.replies)}), where every policy names the step",),
            ("use a method that asks sums alone",),
        )  # fmt: skip
    return Threat("curious coordinator", "It keeps to the protocol, and reads everything", tuple(covered))


def colluding_sites(it: Choices) -> Threat:
    c, h, most = it.study.privacy.colluders, it.study.privacy.honest, it.sums.colluders_tolerated
    who = "Some sites tell the coordinator, or each other, all that they know"
    covered: tuple[str, ...] = (
        f"every sum holds h = {h} honest sites or more while at most {most} collude (c = {c} promised, t = {it.sums.t})",
        "what then shows is the sum of the honest ones",
    ) if most else ()  # fmt: skip
    private = it.private
    if private is not None:
        kept = (
            "reckoned without the colluders' shares" if c else "reckoned on every site's share: colluders can take theirs out"
        )
        covered += (f"noise, {kept} (c = {c})",)
    if c:
        return Threat("colluding sites", who, covered)
    change = f"privacy.colluders: 1 (the threshold withstands {most})" if most else "privacy.threshold higher, or more sites"
    return Threat("colluding sites", who, covered, ("the study promises nothing against colluding sites (c = 0)",), (change,))


def malicious_coordinator(it: Choices) -> Threat:
    covered, gaps, change = [
        "each site derives every question from the signed study, and refuses any other",
        "keys are those of the signed study; approvals are the sites' own",
    ], [], list[str]()  # fmt: skip
    if it.sums.adversary == "active":
        covered.append(f"survivor lists are signed and compared (adversary: active; 2t > n + c, t = {it.sums.t})")
    else:
        gaps.append("it may tell different sites different survivors (adversary: curious)")
        change.append("privacy.adversary: active")
    if it.on_trust:
        gaps.append(f"the aggregates of {', '.join(it.on_trust)} are taken on trust: a false model can steer what leaves next")
        if it.private is None:
            change.append(_noise(it))
        else:
            covered.append(f"noise on each answer, whatever model was sent: {it.guarantee}")
            gaps[-1] += ", within that promise"
            change.append("only the figures are at its mercy: compare the result with a fit that its sites add up (glm, cox)")
    else:
        covered.append("each site adds up every aggregate itself from what the sites signed")
    return Threat("malicious coordinator", "It sends anything to anybody", tuple(covered), tuple(gaps), tuple(change))


def curious_analyst(it: Choices) -> Threat:
    outputs, fits = it.study.outputs, it.study.envelope.fits
    covered, gaps, change = list[str](), list[str](), list[str]()
    covered.append(
        f"a signed study, approved by each site; {fits} variations at most" if fits else "a signed study, no variation"
    )
    if outputs.checkers:
        covered.append(f"results are sealed until {outputs.checks} of {len(outputs.checkers)} output checkers let them go")
    else:
        gaps.append("the study names no output checker: only those whom the sites add stand between results and the lead")
        change.append("outputs.checkers: two or more, neither lead nor operator")
    if fits > 10:
        gaps.append(f"{fits} variations without a new approval")
        change.append("envelope.fits: 10 or less")
    who = "The lead wants more than was agreed"
    return Threat("curious analyst", who, tuple(covered), tuple(gaps), tuple(change))


def membership_inference(it: Choices) -> Threat:
    who = "Whoever holds a result asks whether somebody was in the data"
    if it.private is not None:
        return _by_epsilon("membership inference", who, it)
    covered: tuple[str, ...] = (
        f"counts below {it.study.privacy.minimum_persons} persons are hidden; sites bound numbers per person",
    )
    if it.trained:
        gap = f"the models of {', '.join(it.trained)} are exact: those that learn by heart tell their members by a small loss"
        covered += ("each site attacks a model that held persons out before it goes, and may object: `fivefold outputs check`",)
    else:
        gap = "exact tables and estimates over small groups move with one person, and a reader may know all others"
    return Threat("membership inference", who, covered, (gap,), (_noise(it),))


def reconstruction(it: Choices) -> Threat:
    name, who = "reconstruction from gradients", "Rows are computed back from updates or sums"
    if not it.trained:
        covered = (
            "no gradient of a network is asked; what is asked are sums over rows",
            "steep weights are refused (effective rows), and so are fits with too few degrees of freedom",
        )
        return Threat(name, who, covered)
    if it.private is not None:
        return _by_epsilon(name, who, it)
    if it.replies:
        gap = f"each site's own exact update is seen ({', '.join(it.replies)}): of a small site it gives rows back"
        return Threat(name, who, (), (gap,), ("use a method that asks sums alone",))
    return Threat(
        name, who, (f"one site's update is never seen, only the sum over {it.sums.survivors_needed} sites or more",),
        (f"a sum of exact updates ({', '.join(it.trained)}) gives rows back to one who sends a model made for it",),
        (_noise(it),),
    )  # fmt: skip


def differencing(it: Choices) -> Threat:
    privacy, who = it.study.privacy, "Two releases, or two sums over different sites, are subtracted"
    if it.private is not None:
        found = _by_epsilon("differencing", who, it)
        return replace(found, covered=(*found.covered, "fresh noise whenever anything differs, the same for the same question"))
    covered = (
        f"class rule: sums differ by {privacy.minimum_difference} sites or more, over all studies on the same data",
        "each site compares what is about to be released with its own ledger of releases",
    )
    if buffers_of(it.study, ()):
        gap = "exact buffers are sums over whoever was done first: between two of them a single site's update shows"
        return Threat("differencing", who, covered, (gap,), (_noise(it),))
    if privacy.minimum_difference > 2:
        return Threat("differencing", who, covered)
    gap = "a difference of two sites is still permitted: each of the two then learns the other's numbers"
    return Threat("differencing", who, covered, (gap,), ("privacy.minimum_difference: 3",))


def poisoning(it: Choices) -> Threat:
    who = "A site answers falsely, to bend the result"
    covered = ["every answer is bounded, by bounds that follow from the study"]
    if it.replies:
        covered.append("single replies are compared: a robust mean bears a minority of false ones")
        return Threat("poisoning", who, tuple(covered), ("false answers within the honest ones' spread",))
    gap = "masks hide a false number as well as a right one: norm bounds bind honest sites only"
    change = "ask only sites whose answers you would trust: a robust mean needs single replies, which costs privacy"
    return Threat("poisoning", who, tuple(covered), (gap,), (change,))


THREATS: tuple[Look, ...] = (
    curious_coordinator,
    colluding_sites,
    malicious_coordinator,
    curious_analyst,
    membership_inference,
    reconstruction,
    differencing,
    poisoning,
)
"""Read top to bottom."""


def threats(study: Study) -> tuple[Threat, ...]:
    """Every threat to a study. Raises `StudyInvalid` or `FormulaInvalid` where an analysis cannot be read."""
    choices = Choices(study)
    return tuple(look(choices) for look in THREATS)


def protected(study: Study) -> Study | None:
    """The study as this guide recommends it where exact sums leave something open: a person's ε of 1 over all its rounds, and
    trainings that take one clipped gradient of each person a round. None where a method or an option cannot run so."""
    it, given = Choices(study), study.privacy.differential_privacy
    if not all("person" in m.protects for _, m in it.methods):
        return None
    delta = min(given.delta, RECOMMENDED_DELTA) if given else RECOMMENDED_DELTA
    noise = DifferentialPrivacy("person", RECOMMENDED_EPSILON, delta, 1.0, given.dropouts if given else 0)
    analyses = tuple(replace(a, options=_bounded(a)) if m.trains else a for a, m in it.methods)
    noised = replace(study, analyses=analyses, privacy=replace(study.privacy, differential_privacy=noise))
    try:
        shared, own = Choices(noised).charged
        z = multiplier_for(shared if own else max(shared, 1), RECOMMENDED_EPSILON, delta, own)
    except StudyInvalid:
        return None
    enough = replace(noise, noise_multiplier=z)
    return replace(noised, privacy=replace(study.privacy, differential_privacy=enough))


def _bounded(analysis: Analysis) -> dict[str, Any]:
    kept = {name: value for name, value in analysis.options.items() if name not in ("local_epochs", "batch_size")}
    return {"clip": 1.0, **kept, "scaling": "range", "weighting": "equal"}


def table(study: Study) -> ResultTable:
    """The threats as a table: part of the proposal and of the research package."""
    rows = [(t.name, t.who, t.status, "; ".join(t.covered), "; ".join(t.open), "; ".join(t.change)) for t in threats(study)]
    return ResultTable.of("Threats", ("threat", "who", "status", "covered_by", "open", "to_change"), rows)


def as_json(study: Study) -> list[dict[str, Any]]:
    """Plain values, one threat each."""
    return [
        {
            "threat": t.name,
            "who": t.who,
            "status": t.status,
            "covered": list(t.covered),
            "open": list(t.open),
            "change": list(t.change),
        }
        for t in threats(study)
    ]


def _by_epsilon(name: str, who: str, it: Choices) -> Threat:
    """What noise covers: by its unit, and by how large its ε is."""
    private = it.private
    assert private is not None
    shared, own = it.charged
    cost = spent(shared, private.noise_multiplier, private.delta, own)
    covered = (
        f"{it.guarantee}; {it.rounds} rounds with a noise multiplier of {private.noise_multiplier:g} cost {cost:.3g}",
        meaning(private.epsilon),
    )
    if private.epsilon > WEAK:
        gap = f"an ε of {private.epsilon:g} bounds little, for a {private.unit} whom an attacker looks for"
        return Threat(name, who, covered, (gap,), (_noise(it),))
    return Threat(name, who, covered)


def _noise(it: Choices) -> str:
    """What to write under privacy."""
    found = protected(it.study)
    wanted = found.privacy.differential_privacy if found is not None else None
    if wanted is None:
        able = ", ".join(n for n in plugins.METHODS if "person" in plugins.method(n).protects)
        return f"no noise protects a person with these methods and options: take {able}, or keep exact results at the sites"
    one = "; in trainings clip: 1.0, scaling: range, weighting: equal, no local_epochs or batch_size" if it.trained else ""
    return (
        f"privacy.differential_privacy: {{unit: person, epsilon: {wanted.epsilon:g}, delta: {wanted.delta:g}, "
        f"noise_multiplier: {wanted.noise_multiplier:g}}}{one}"
    )
