"""A user's model code tries to get out of its child, by every door that the threat model names; and honest code works there."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.errors import CodeFailed, CodeRefused
from fivefold.models import confined, user_code
from fivefold.models.model import ModelSpec, build, flat, more, size
from fivefold.models.user_code import Child, digest_of

SECRET = "canary-3f9a"
PROBE = """
import os, sys, math
import numpy as np
{setup}

def attempt(x):
{body}

def predict(weights, x):
    try:
        found = attempt(x)
    except BaseException as error:
        raise RuntimeError(f"stopped {{type(error).__name__}}: {{error}}") from None
    raise RuntimeError(f"reached {{found!r}}")

def loss_and_gradient(weights, x, y):
    return 0.0, weights
"""
NETWORK = """
import torch
from torch.nn import functional as F

def scores(weights, x):
    return F.linear(F.relu(F.linear(x, weights["a"], weights["b"])), weights["c"])
"""


def probe(body: str, setup: str = "") -> str:
    indented = "\n".join("    " + line for line in body.strip().splitlines())
    return PROBE.format(setup=setup, body=indented)


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    made: list[Child] = []

    def start(source: str, **limits: int) -> Child:
        made.append(Child(source, "binary", 1, **limits))
        return made[-1]

    yield start
    for one in made:
        one.close()


def told(one: Child) -> str:
    """What an attempt came to: `stopped …` or `reached …`."""
    with pytest.raises(CodeFailed) as failed:
        one.call("predict", {"predicted": (1, 1)}, {"w": np.zeros(1)}, {"x": np.zeros((1, 1))})
    assert failed.value.rule == "code_failed"
    return failed.value.message


def escape(body: str, setup: str = "") -> str:
    """As `told`, in a child of its own; all attempts of a test share the price of one start where they can."""
    one = Child(probe(body, setup), "binary", 1)
    try:
        return told(one)
    finally:
        one.close()


def test_no_network_of_any_family() -> None:
    """A listener on this machine stays alone."""
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    body = f"""
libc = ctypes.CDLL(None, use_errno=True)
said = []
for family, kind in ((2, 1), (2, 2), (10, 2), (1, 1), (16, 3), (17, 3)):  # IPv4, IPv6, Unix, netlink, packet
    said.append((libc.socket(family, kind, 0), ctypes.get_errno()))
address = (2).to_bytes(2, "little") + ({server.getsockname()[1]}).to_bytes(2, "big") + bytes((127, 0, 0, 1)) + bytes(8)
said += [(libc.connect(fd, address, 16), ctypes.get_errno()) for fd in (0, 1, 2, 3)]
try:
    import socket
except ModuleNotFoundError:
    said.append("not even the module")
return said
"""
    said = escape(body, "import ctypes")
    assert f"reached {[(-1, 1)] * 10 + ['not even the module']}" in said
    with pytest.raises(BlockingIOError):
        server.accept()
    server.close()


def test_no_file_is_opened_read_written_named_or_listed(tmp_path: Path) -> None:
    key = tmp_path / "node.key"
    key.write_text(SECRET)
    body = f"""
said = []
tries = (
    lambda: open({str(key)!r}).read(), lambda: os.open("/etc/passwd", os.O_RDONLY), lambda: os.stat({str(key)!r}),
    lambda: os.listdir("/"), lambda: open("/tmp/left-behind", "w"), lambda: np.load("/etc/passwd"),
    lambda: os.rename({str(key)!r}, "/tmp/x"), lambda: os.unlink({str(key)!r}), lambda: os.readlink("/proc/self/exe"),
    lambda: os.memfd_create("x"), lambda: os.pipe(), lambda: os.dup(1),
)
for one in tries:
    try:
        said.append(one())
    except PermissionError:
        said.append("no")
return said
"""
    said = escape(body)
    assert f"reached {['no'] * 12}" in said
    assert key.read_text() == SECRET


def test_nothing_of_the_parent_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment and its memory, by /proc and by system calls (ptrace 101, process_vm_readv 310)."""
    monkeypatch.setenv("FIVEFOLD_PASSWORD", SECRET)
    body = f"""
said = [dict(os.environ), SECRET_HERE in os.environ.values()]
for place in ("environ", "mem", "maps", "fd"):
    for who in ("{os.getpid()}", "self"):
        try:
            said.append(open(f"/proc/{{who}}/{{place}}", "rb").read())
        except PermissionError:
            said.append("no")
libc = ctypes.CDLL(None, use_errno=True)
for number in (101, 310, 425, 437, 462):
    said.append(libc.syscall(number, 16, {os.getpid()}, 0, 0))
said.append(libc.getenv(b"FIVEFOLD_PASSWORD"))
return said
""".replace("SECRET_HERE", repr(SECRET))
    said = escape(body, "import ctypes")
    expected = [{}, False, *["no"] * 8, *[-1] * 5, 0]
    assert f"reached {expected}" in said
    assert SECRET not in said


def test_no_fork_bomb_no_thread_no_program_no_signal() -> None:
    body = f"""
said = []
tries = (
    os.fork, lambda: os.execv("/bin/sh", ["sh"]), lambda: os.kill({os.getpid()}, 0),
    lambda: os.posix_spawn("/bin/true", ["true"], {{}}),
)
for one in tries:
    try:
        one()
        said.append("yes")
    except PermissionError:
        said.append("no")
try:
    _thread.start_new_thread(print, ())
    said.append("yes")
except RuntimeError:
    said.append("no")
return said
"""
    assert "reached ['no', 'no', 'no', 'no', 'no']" in escape(body, "import _thread")


def test_memory_has_an_end(child: Callable[..., Child]) -> None:
    assert "MemoryError" in told(child(probe("return np.ones((100_000, 100_000)).sum()"), megabytes=2048))


def test_a_call_that_does_not_end_is_ended(child: Callable[..., Child]) -> None:
    one = child(probe("while True: pass"), seconds=1)
    with pytest.raises(CodeFailed) as late:
        one.call("predict", {"predicted": (1, 1)}, {"w": np.zeros(1)}, {"x": np.zeros((1, 1))})
    assert late.value.rule == "code_too_slow"
    assert not one.alive


def test_what_comes_back_is_checked(child: Callable[..., Child]) -> None:
    """Other names or shapes, numbers that are not finite, and frames of its own making."""
    bad = {
        "code_shapes": "return np.zeros((7, 1))",
        "code_not_finite": "return np.full((1, 1), np.inf)",
        "code_reply": "os.write(1, b'A' + (3).to_bytes(8, 'little') + b'abc'); return np.zeros((1, 1))",
        "code_ended": "os._exit(0)",
    }
    for rule, body in bad.items():
        source = "import os\nimport numpy as np\ndef loss_and_gradient(w, x, y): return 0.0, w\ndef predict(w, x):\n    " + body
        one = child(source)
        with pytest.raises(CodeFailed) as failed:
            one.call("predict", {"predicted": (1, 1)}, {"w": np.zeros(1)}, {"x": np.zeros((1, 1))})
        assert failed.value.rule == rule
        assert not one.alive


def test_where_the_kernel_takes_no_filter_the_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child says so before it has looked at the code, which would leave a mark here."""
    starts = subprocess.Popen

    def elsewhere(command: list[str], **more: Any) -> subprocess.Popen[bytes]:
        patched = command[-1].replace("main()", "import platform; platform.machine = lambda: 'riscv64'; main()")
        return starts([*command[:-1], patched], **more)

    monkeypatch.setattr(user_code.subprocess, "Popen", elsewhere)
    with pytest.raises(CodeRefused, match="riscv64") as refused:
        Child("raise SystemError('it ran')", "binary", 1)
    assert refused.value.rule == "code_not_confined"


def test_the_filter_permits_by_name_and_refuses_the_rest() -> None:
    """A list of what is admitted, and no list of what is not: a system call of next year is refused."""
    for name in (
        "open",
        "openat",
        "openat2",
        "socket",
        "connect",
        "clone",
        "clone3",
        "fork",
        "execve",
        "ptrace",
        "stat",
        "kill",
    ):
        assert name not in confined.CALLS
    program = confined.program()
    assert len(program) == 8 * (6 + 2 * len(confined.CALLS) + 1)
    assert program[-8:] == b"\x06\x00\x00\x00\x01\x00\x05\x00"  # errno 1, for all that is left


def spec_of(source: str, task: str = "classes", outputs: int = 3, l2: float = 0.0) -> ModelSpec:
    given = {
        "kind": "code",
        "source": source,
        "digest": digest_of(source),
        "shapes": {"a": [5, 4], "b": [5], "c": [outputs, 5]},
    }
    return ModelSpec("code", task, 4, outputs, True, (), l2, more("code", given, 4))


def test_honest_code_trains_as_the_built_in_network_does() -> None:
    own = build(spec_of(NETWORK, l2=0.1))
    built = build(ModelSpec("torch_mlp", "classes", 4, 3, True, (5,), 0.1, {"precision": "single"}))
    r = np.random.default_rng(1)
    x, y = r.normal(size=(30, 4)), r.integers(0, 3, 30).astype(float)
    at = {n: r.normal(size=s) for n, s in own.shapes.items()}
    theirs = {"layer1": at["a"], "bias1": at["b"], "layer2": at["c"], "bias2": np.zeros(3)}
    loss, gradient = own.loss_and_gradient(at, x, y)
    expected_loss, expected = built.loss_and_gradient(theirs, x, y)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    np.testing.assert_allclose(flat(gradient), np.concatenate([expected[n].ravel() for n in list(expected)[:3]]), atol=1e-6)
    np.testing.assert_allclose(own.predict(at, x), built.predict(theirs, x), atol=1e-6)
    again = own.loss_and_gradient(at, x, y)
    assert np.array_equal(flat(again[1]), flat(gradient))
    assert size(own) == 40


def test_a_call_knows_nothing_of_the_one_before(child: Callable[..., Child]) -> None:
    source = """
import numpy as np
seen = []
def predict(weights, x):
    seen.append(1)
    return np.full((len(x), 1), float(len(seen)))
def loss_and_gradient(weights, x, y): return 0.0, weights
"""
    one = child(source)
    for _ in range(2):
        found = one.call("predict", {"predicted": (2, 1)}, {"w": np.zeros(1)}, {"x": np.zeros((2, 1))})
        assert np.array_equal(found["predicted"], np.ones((2, 1)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": "def scores(w, x: return x"}, "not Python"), ({"digest": "0" * 64}, "not that of the code"),
        ({"source": ""}, "missing"), ({"shapes": {}}, "shapes"), ({"shapes": {"a": [0]}}, "shapes"),
        ({"seconds": 0}, "seconds"), ({"source": "#" * 300_000}, "longer"),
    ],
)  # fmt: skip
def test_wrong_code_options_end_in_a_sentence(change: dict[str, object], says: str) -> None:
    given = {"source": NETWORK, "shapes": {"a": [5, 4]}, **change}
    with pytest.raises(ValueError, match=says):
        more("code", {"digest": digest_of(str(given["source"])), **given}, 4)


def test_another_source_than_the_digest_names_does_not_run() -> None:
    spec = spec_of(NETWORK)
    with pytest.raises(CodeRefused) as refused:
        build(ModelSpec(**{**vars(spec), "more": {**spec.more, "source": NETWORK + "\n# more"}}))
    assert refused.value.rule == "code_digest"
