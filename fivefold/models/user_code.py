"""A user's own model code: refused by default, shown whole at approval, bound by its digest, run in a child without the world.

    model: {kind: code, file: network.py, shapes: {w1: [16, 64], b1: [16], w2: [10, 16], b2: [10]}}

The file defines `scores(weights, x)` over torch tensors, or `loss_and_gradient(weights, x, y)` and `predict(weights, x)` over
NumPy arrays. Freezing the study puts the source itself and its SHA-256 digest in the file's place. The shapes stand in the
study, so that the side without rows never runs the code. At the site it runs in `models/confined.py`, a fresh interpreter that
is held by a kernel filter (seccomp): no network, no files, no other process, no environment; see there. Arrays go and come
over two pipes as safetensors.

What confinement cannot do: such code sees rows and gives numbers back, and may write one into the other. Only the sum over
sites, thresholds and noise stand against that; so a study with differential privacy of persons refuses it, and custodians
read it.
"""

from __future__ import annotations

import atexit
import hashlib
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from fivefold.errors import CodeFailed, CodeRefused
from fivefold.models import safetensors as files
from fivefold.models.confined import read_frame, write_frame
from fivefold.models.model import Floats, ModelSpec, Weights

MOST_SOURCE = 256 * 1024
MOST_WEIGHTS = 20_000_000
SECONDS = 60
"""What one call may take, where the study names no other limit."""


def options(kind: str, given: Mapping[str, Any], features: int) -> dict[str, Any]:
    """`source` and `digest` (put there when the study is read), `shapes` by name, `head` (names), `seconds` for one call,
    `megabytes` of memory. Raises `ValueError` with a sentence."""
    source, digest = given.get("source"), given.get("digest")
    if not isinstance(source, str) or not source.strip():
        raise ValueError("the code is missing; write `file: network.py`, a file beside the study")
    if len(source.encode()) > MOST_SOURCE:
        raise ValueError(f"the code is longer than {MOST_SOURCE // 1024} KiB; a custodian has to read it")
    if digest != digest_of(source):
        raise ValueError("`digest` is not that of the code; leave it out, and it is written when the study is frozen")
    try:
        compile(source, "the model's code", "exec")
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"the code is not Python: {error}") from None
    shapes = given.get("shapes")
    if not isinstance(shapes, Mapping) or not shapes or not all(_shape(s) for s in shapes.values()):
        raise ValueError("`shapes` is missing; write the shape of each array: `shapes: {w: [10, 64], b: [10]}`")
    if sum(int(np.prod(s)) for s in shapes.values()) > MOST_WEIGHTS:
        raise ValueError(f"`shapes` hold more than {MOST_WEIGHTS:,} weights")
    head = given.get("head", ())
    if not isinstance(head, (list, tuple)) or not set(head) <= set(shapes):
        raise ValueError(f"`head` names what is not among the shapes: {head!r}")
    limits = {"seconds": given.get("seconds", SECONDS), "megabytes": given.get("megabytes", 4096)}
    for name, most in (("seconds", 3600), ("megabytes", 65_536)):
        if type(limits[name]) is not int or not 1 <= limits[name] <= most:
            raise ValueError(f"`{name}` is {limits[name]!r}; write a whole number from 1 to {most}")
    named = tuple((str(n), tuple(s)) for n, s in shapes.items())
    return {"source": source, "digest": digest, "shapes": named, "head": tuple(head), **limits}


def _shape(value: Any) -> bool:
    few = isinstance(value, (list, tuple)) and len(value) <= 8
    return few and all(type(n) is int and 1 <= n <= MOST_WEIGHTS for n in value)


def digest_of(source: str) -> str:
    """SHA-256 of the source as UTF-8, 64 hex digits: what study, approval and site name it by."""
    return hashlib.sha256(source.encode()).hexdigest()


def build(spec: ModelSpec) -> UserCode:
    """Nothing runs yet. Raises `CodeRefused` where the source is not what the digest names."""
    if digest_of(spec.more["source"]) != spec.more["digest"]:
        raise CodeRefused("the model's code is not the one that its digest names", rule="code_digest")
    return UserCode(spec)


@dataclass(frozen=True)
class UserCode:
    """A model whose functions are calls to a confined child; each array that comes back is checked against the shapes."""

    spec: ModelSpec

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(shape) for name, shape in self.spec.more["shapes"]}

    @property
    def head(self) -> tuple[str, ...]:
        return tuple(self.spec.more["head"])

    def initial(self, rng: np.random.Generator) -> Weights:
        """As the networks of `models/torch.py` begin; the code has no word in it."""
        from fivefold.models.torch import glorot

        return glorot(self.shapes, rng)

    def loss_and_gradient(self, weights: Weights, x: Floats, y: Floats) -> tuple[float, Weights]:
        """With the study's penalty added here."""
        wanted = {**{f"gradient {n}": s for n, s in self.shapes.items()}, "loss": ()}
        found = self._call("loss_and_gradient", wanted, weights, x=x, y=y)
        penalty = self.spec.l2 / 2 * sum(float((w * w).sum()) for w in weights.values() if w.ndim > 1)
        gradient = {n: found[f"gradient {n}"] + (self.spec.l2 * w if w.ndim > 1 else 0.0) for n, w in weights.items()}
        return float(found["loss"]) + penalty, gradient

    def descend(self, weights: Weights, x: Floats, y: Floats, rate: float) -> Weights:
        _, gradient = self.loss_and_gradient(weights, x, y)
        return {name: w - rate * gradient[name] for name, w in weights.items()}

    def predict(self, weights: Weights, x: Floats) -> Floats:
        return self._call("predict", {"predicted": (len(x), self.spec.outputs)}, weights, x=x)["predicted"]

    def _call(self, what: str, wanted: Mapping[str, tuple[int, ...]], weights: Weights, **arrays: Floats) -> dict[str, Floats]:
        key = tuple(sorted((k, v) for k, v in self.spec.more.items() if k in ("source", "seconds", "megabytes")))
        try:
            return _child(key, self.spec.task, self.spec.outputs).call(what, wanted, weights, arrays)
        except CodeFailed as error:
            if error.rule != "code_ended":
                raise
        # A child ends with the thread that began it; a call knows nothing of the one before, so it is made once more.
        return _child(key, self.spec.task, self.spec.outputs).call(what, wanted, weights, arrays)


class Child:
    """A confined interpreter that serves one model until it is closed, fails, or is too slow for one call."""

    def __init__(self, source: str, task: str, outputs: int, *, seconds: int = SECONDS, megabytes: int = 4096) -> None:
        self.seconds = seconds
        start = f"import sys; sys.path[:] = {sys.path!r}; from fivefold.models.confined import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"},
            cwd="/", close_fds=True, start_new_session=True,
        )  # fmt: skip
        self._lock = threading.Lock()
        terms = {"task": task, "outputs": str(outputs), "megabytes": str(megabytes), "seconds": str(seconds)}
        self._exchange(files.dump({}, {"source": source, **terms}), wait=120)  # imports torch: may be slow the first time

    def call(
        self, what: str, wanted: Mapping[str, tuple[int, ...]], weights: Weights, arrays: Mapping[str, Floats]
    ) -> dict[str, Floats]:
        """Arrays of just these names and shapes, finite. Raises `CodeFailed`; the child is gone then."""
        sent = {f"weight {n}": np.asarray(w, dtype=np.float64) for n, w in weights.items()} | dict(arrays)
        found = self._exchange(files.dump(sent, {"call": what}), wait=self.seconds)
        if set(found) != set(wanted) or any(found[n].shape != tuple(s) for n, s in wanted.items()):
            self._fail("gave arrays of other names or shapes than the study says", "code_shapes")
        if not all(np.isfinite(a).all() for a in found.values()):
            self._fail("gave a number that is not finite", "code_not_finite")
        return {n: np.asarray(found[n], dtype=np.float64) for n in wanted}

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self.process.wait()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def _exchange(self, body: bytes, *, wait: float) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        with self._lock:
            clock = threading.Timer(wait, stop)
            clock.start()
            try:
                write_frame(self.process.stdin.fileno(), body)
                kind, reply = read_frame(self.process.stdout.fileno())
            except (OSError, EOFError):
                if late.is_set():
                    self._fail(f"took longer than {wait:g} seconds", "code_too_slow")
                self._fail("ended, or used what it may not", "code_ended")
            finally:
                clock.cancel()
        if kind == b"R":
            self.close()
            raise CodeRefused(
                f"this machine cannot confine a user's model: {_said(reply)}", rule="code_not_confined",
                help="Run the site on Linux (x86-64) whose kernel has seccomp filters, or do not admit such models.",
            )  # fmt: skip
        if kind != b"A":
            self._fail(f"failed: {_said(reply)}", "code_failed")
        try:
            return files.load(reply)
        except files.Malformed as error:
            self._fail(f"gave what is no safetensors file: {error}", "code_reply")

    def _fail(self, why: str, rule: str) -> NoReturn:
        self.close()
        raise CodeFailed(f"the model's own code {why}", rule=rule)


def _said(reply: bytes) -> str:
    """At most a line of what the child said, without control characters; it stays at the site."""
    return "".join(c if c.isprintable() else " " for c in reply[:300].decode("utf-8", "replace"))


CHILDREN = 4
"""How many sources may have a running child at once."""
_children: dict[Any, Child] = {}
_starting = threading.Lock()


def _child(key: tuple[tuple[str, Any], ...], task: str, outputs: int) -> Child:
    """The running child of a source, or a new one: starting an interpreter takes a second, a call a millisecond."""
    with _starting:
        held = _children.get((key, task, outputs))
        if held is None or not held.alive:
            while len(_children) >= CHILDREN:
                _children.pop(next(iter(_children))).close()
            more = dict(key)
            held = Child(more["source"], task, outputs, seconds=more["seconds"], megabytes=more["megabytes"])
            _children[key, task, outputs] = held
        return held


@atexit.register
def _close_all() -> None:
    while _children:
        _children.popitem()[1].close()
