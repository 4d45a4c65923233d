"""One site ten times slower than the others: how long synchronous and asynchronous training take to the same loss.

python -m benchmarks.asynchronous

Five sites of the breast data, each in a thread of its own, everything switched on. To train on its rows takes a site
0.2 s and the slow one 2 s (they wait; the rest is this machine's own work). The loss is that of all rows of all sites under the
weights after each round, reckoned afterwards from the run's journal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Figures, report
from examples.consortium import prepared
from fivefold.coordinator import session
from fivefold.coordinator.rounds import Progress
from fivefold.engines.concurrent import ConcurrentEngine
from fivefold.engines.local import local_nodes
from fivefold.protocol.encoding import decode
from fivefold.protocol.messages import Ask, Compute, Envelope, Task, Told
from fivefold.records.journal import read
from fivefold.replay.cursor import Cursor, Outcome
from fivefold.site.folder import opened
from fivefold.site.preparation import open_prepared
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable
from fivefold.study.digest import SignedStudy
from fivefold.study.table import Table

if TYPE_CHECKING:
    from fivefold.site.node import Node

SITES = ("alder", "birch", "cedar", "elm", "fir")
SLOW, TIMES, SECONDS = "elm", 10.0, 0.2
ROUNDS, BUFFERS, MEMBERS = 12, 36, 4
FORMULA = "malignant ~ mean_radius + mean_texture + mean_smoothness + mean_concavity + mean_symmetry"
TRAINED = "training.local_update/1"
TARGETS = {"ratio_to_synchronous": ">= 1.5"}


class Paced:
    """A site that takes this many seconds to train."""

    def __init__(self, node: Node, seconds: float) -> None:
        self.node, self.seconds = node, seconds

    def answer(self, request: bytes) -> bytes:
        if trains(Envelope.decode(request)):
            time.sleep(self.seconds)
        return self.node.answer(request)

    def close(self) -> None:
        self.node.close()


def trains(asked: Envelope) -> bool:
    """Whether a site computes an update to answer this: at once, or beforehand for a buffer."""
    if asked.kind == Compute.kind:
        return True
    if asked.kind != Ask.kind:
        return False
    question = decode(Task.decode(Ask.decode(asked.body).task).question)
    parts = question if isinstance(question, tuple) else (question,)
    return parts[0]["step"] == TRAINED and "buffer" not in parts[0]


@dataclass(frozen=True)
class Course:
    """A training: after so many seconds the loss was so much; from the first weights on."""

    seconds: tuple[float, ...]
    losses: tuple[float, ...]

    def reached(self, loss: float) -> float | None:
        """Seconds until the loss was no more than this for good; None where it never was."""
        above = [i for i, value in enumerate(self.losses) if value > loss]
        at = above[-1] + 1 if above else 0
        return self.seconds[at] if at < len(self.losses) else None


def main() -> None:
    print(__doc__)
    common = {"model": {"kind": "logistic"}, "learning_rate": 0.5, "local_epochs": 2, "batch_size": 32, "bins": 0}
    waiting = Analysis("training", "fedavg", FORMULA, options={**common, "rounds": ROUNDS, "evaluate_every": ROUNDS})
    options = {**common, "rounds": BUFFERS, "buffer": MEMBERS, "site_totals": "needed"}
    with TemporaryDirectory() as folder:
        synchronous = course(Path(folder) / "synchronous", waiting)
        asynchronous = course(Path(folder) / "asynchronous", Analysis("training", "fedbuff", FORMULA, options=options))
    wanted = synchronous.losses[-1]
    ours, theirs = asynchronous.reached(wanted), synchronous.seconds[-1]
    for name, it, unit in (("synchronous", synchronous, "round"), ("asynchronous", asynchronous, "buffer")):
        pace, first, last = it.seconds[-1] / (len(it.seconds) - 1), it.losses[0], it.losses[-1]
        print(f"{name:12}  {pace:.2f} s a {unit}; loss {first:.4f} at first, {last:.4f} after {it.seconds[-1]:.1f} s")
    when = f"after {ours:.1f} s" if ours else "never"
    print(f"\nLoss {wanted:.4f}: synchronous after {theirs:.1f} s, asynchronous {when}\n")
    figures: Figures = {
        "ratio_to_synchronous": theirs / ours if ours else None,
        "loss": wanted,
        "synchronous_s": theirs,
        "asynchronous_s": ours,
        "synchronous_s_a_round": theirs / ROUNDS,
        "asynchronous_s_a_buffer": asynchronous.seconds[-1] / BUFFERS,
    }
    report("asynchronous", figures, TARGETS)


def course(out: Path, analysis: Analysis) -> Course:
    """Run it, and say when its loss was what."""
    signed = consortium(out, analysis)
    nodes = local_nodes(out / "sites", SITES)
    paced = {name: Paced(node, SECONDS * (TIMES if name == SLOW else 1)) for name, node in nodes.items()}
    told: dict[int, float] = {}

    def tell(at: Progress) -> None:
        told[at.round] = time.perf_counter()

    with closing(ConcurrentEngine(paced)) as engine:
        session.run(signed, engine, out / "run", tell=tell, engine_name="local", resume=False)
    tables = [open_prepared(opened(out / "sites" / s), signed.study, signed.digest).table for s in SITES]
    rounds, losses = trajectory(signed, out / "run", tables)
    before = told[min(rounds) - 1]
    return Course((0.0, *(told[r] - before for r in rounds)), losses)


def trajectory(signed: SignedStudy, run: Path, tables: Sequence[Table]) -> tuple[list[int], tuple[float, ...]]:
    """The rounds in which the weights moved, and the mean loss over all rows before the first and after each of them."""
    from fivefold.algorithms.training_steps import evaluate

    cursor, rounds, losses, last = Cursor(signed.study), list[int](), list[float](), dict[str, Any]()
    for record in (r for r in read(run / "journal" / "rounds.journal") if r["event"] == "aggregate"):
        asked, told = cursor.open, Told.decode(record["told"])
        assert asked is not None
        moves = asked.sums[0].step.identity == TRAINED
        if moves:
            last = dict(asked.sums[0].arguments)
            losses.append(loss(evaluate, last, tables))
            rounds.append(asked.round)
        cursor.feed(Outcome(decode(told.totals), told.sites, told.dropped, told.ended))
        judged = cursor.open.sums[0] if cursor.open is not None else None
        if judged is not None and moves and judged.step.identity != TRAINED:
            losses.append(loss(evaluate, {"weights": judged.arguments["weights"], "fit": last["fit"]}, tables))
    return rounds, tuple(losses)


def loss(evaluate: Any, at: Mapping[str, Any], tables: Sequence[Table]) -> float:
    sums = [evaluate(table, weights=at["weights"], fit=at["fit"], bins=0) for table in tables]
    return float(sum(s["loss"] for s in sums) / sum(s["rows"] for s in sums))


def consortium(out: Path, analysis: Analysis) -> SignedStudy:
    """The breast data, dealt to five sites at random; the slow one has a fifth of the rows, like the others."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    raw = load_breast_cancer(as_frame=True).frame.rename(columns=lambda c: str(c).replace(" ", "_"))
    names = FORMULA.partition("~")[2].replace("+", " ").split()
    frame = raw[names].assign(malignant=1.0 - raw.target)
    frame["site"] = np.random.default_rng(1).permutation(np.resize(SITES, len(frame)))
    numbers = (Variable(n, n, "number", minimum=0, maximum=float(2 * raw[n].max())) for n in names)
    return prepared(out, "breast", frame, (*numbers, Variable("malignant", "malignant", "boolean")), (analysis,), seed=1)


if __name__ == "__main__":
    main()
