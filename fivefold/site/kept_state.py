"""What steps keep at their own site between the rounds of a run (SCAFFOLD's control variates, say).

A round may be lost, asked again, or go on without this site; then what its step wanted to keep must not count. So it is staged
under the round and becomes valid only when the next question shows this site among the round's survivors. It never leaves the
site, and dies with the run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fivefold.errors import AnswerMalformed, Refused
from fivefold.privacy.dp.noisy_steps import NoisySteps
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.questions import STATE, Array
from fivefold.records.files import write_file
from fivefold.replay.cursor import Asked
from fivefold.study.table import Table

State = Mapping[str, Array]


class KeptState:
    """One run's states, in a folder of its own: `staged/ROUND/NAME` and `committed/NAME`, deterministic CBOR.

    `stage` and `settle` may be repeated, as after a crash. Raises `StorageFull`; then nothing was kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def committed(self, key: str) -> State | None:
        """What the step kept in the last round that counted; None before the first."""
        path = self.folder / "committed" / _name(key)
        state: State | None = decode(path.read_bytes()) if path.exists() else None
        return state

    def stage(self, round: int, states: Mapping[str, State]) -> None:
        """Keep these for now, instead of what an earlier attempt at the round staged. Durable when it returns."""
        self._drop(round)
        for key, state in states.items():
            path = self._staged(round) / _name(key)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_file(path, encode(dict(state)))
            path.chmod(0o600)

    def settle(self, round: int, survived: bool) -> None:
        """The round is over: what was staged for it becomes valid where this site is in its sum, and is lost where not."""
        staged = self._staged(round)
        if survived and staged.is_dir():
            committed = self.folder / "committed"
            committed.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in sorted(staged.iterdir()):
                os.replace(path, committed / path.name)
        self._drop(round)

    def close(self) -> None:
        """The run is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _staged(self, round: int) -> Path:
        return self.folder / "staged" / str(round)

    def _drop(self, round: int) -> None:
        shutil.rmtree(self._staged(round), ignore_errors=True)


def computed(
    asked: Asked,
    arguments: Sequence[Mapping[str, Any]],
    table: Table,
    committed: Callable[[str], State | None],
    noise: NoisySteps | None = None,
) -> tuple[Mapping[str, Array], dict[str, State]]:
    """Run the question's steps over the rows, with the arguments that were sent: the answer, and what the steps want to keep.

    `committed` gives what a step kept before, `noise` is for the step that draws its own. Raises `Refused` where such a step is
    given none, `AnswerMalformed` for a state that is not a mapping of arrays.
    """
    answers, states = [], dict[str, State]()
    for i, (one, given) in enumerate(zip(asked.sums, arguments, strict=True)):
        if one.step.draws:
            if noise is None:
                raise Refused(f"the step {one.step.identity} has nothing to draw noise from here", rule="noisy_steps")
            answers.append(one.step(table, **given, noise=noise))
            continue
        if not one.step.keeps_state:
            answers.append(one.step(table, **given))
            continue
        key = f"{asked.analysis.name}/{i}/{one.step.identity}"
        answer = dict(one.step(table, **given, state=committed(key)))
        state = answer.pop(STATE, None)
        if not isinstance(state, Mapping) or not all(isinstance(value, np.ndarray) for value in state.values()):
            raise AnswerMalformed(f"the step {one.step.identity} keeps something that is not a mapping of arrays")
        states[key] = state
        answers.append(answer)
    return asked.join(answers), states


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32] + ".cbor"
