"""The child in which a user's model runs: it shuts itself in first, and only then looks at the code.

In this order: libraries are loaded; limits on memory, files and processes are set; the kernel is told that no program may gain
rights, that nobody may look into this process, and that it ends with its parent; then a seccomp filter admits a list of system
calls and answers every other with "not permitted", for good. The list has what arithmetic and two open pipes need: no call that
opens, names or looks at a file, none that makes a socket, a process, a thread or a signal for another, none that reads another
process's memory. The interpreter was started afresh with an empty environment and no open file but the pipes, so that there is
no key to find in it.

The filter is classic BPF (Linux: Documentation/userspace-api/seccomp_filter.rst); `SECCOMP_RET_ERRNO` lets Python say
PermissionError. x86-64 only: elsewhere the child says so and serves nothing.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from typing import Any

CALLS = {
    "read": 0, "write": 1, "close": 3, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13,
    "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39,
    "exit": 60, "getrusage": 98, "sigaltstack": 131, "gettid": 186, "futex": 202, "sched_getaffinity": 204,
    "restart_syscall": 219, "clock_gettime": 228, "clock_nanosleep": 230, "exit_group": 231, "getcpu": 309, "getrandom": 318,
    "rseq": 334,
}  # fmt: skip
"""What stays permitted, by number on x86-64. `fork` and its kin, `execve`, `open…`, `stat…`, `socket…`, `kill`, `ptrace`,
`process_vm_readv`, `io_uring…`, `unshare`, `mount` are not here, and neither is anything newer than this list."""
AUDIT_ARCH_X86_64, X32 = 0xC000003E, 0x40000000
ALLOW, ERRNO_EPERM, KILL = 0x7FFF0000, 0x00050001, 0x80000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, SYS_SECCOMP = 1, 4, 38, 317
MOST_FRAME = 1 << 31


def main() -> None:
    """Serve until the parent closes its end. Frames: a kind (`A` answer, `E` the code failed, `R` cannot confine), a length,
    bytes."""
    source, out = 0, 1
    try:
        _, body = read_frame(source)
        terms = _terms(body)
        libraries = _load(terms["source"])
        confine(megabytes=int(terms["megabytes"]))
    except BaseException as error:
        write_frame(out, f"{type(error).__name__}: {error}".encode(), b"R")
        return
    try:
        model = _model(terms, libraries)
    except BaseException as error:
        write_frame(out, _sentence(error), b"E")
        return
    write_frame(out, _dump({}), b"A")
    while True:
        try:
            _, body = read_frame(source)
        except EOFError:
            return
        try:
            answer, kind = _dump(model(body)), b"A"
        except BaseException as error:
            answer, kind = _sentence(error), b"E"
        write_frame(out, answer, kind)


# ---- shutting in -------------------------------------------------------------------------------------------------------
def confine(*, megabytes: int) -> None:
    """No way back from here. Raises `OSError` where the kernel does not permit it."""
    import resource

    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise OSError(f"the filter is for Linux on x86-64, and this is {platform.system()} on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    os.environ.clear()
    os.closerange(2, 1 << 16)  # stderr too: only the two pipes stay
    for kind, most in (
        (resource.RLIMIT_AS, megabytes << 20), (resource.RLIMIT_NOFILE, 2), (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_MEMLOCK, 0),
    ):  # fmt: skip
        resource.setrlimit(kind, (most, most))
    for option, value in ((PR_SET_PDEATHSIG, 9), (PR_SET_DUMPABLE, 0), (PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the kernel does not take a limit")
    code = program()
    held = ctypes.create_string_buffer(code, len(code))
    wanted = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(held))
    # SECCOMP_SET_MODE_FILTER with SECCOMP_FILTER_FLAG_TSYNC: every thread that a library may have begun is held too.
    if libc.syscall(SYS_SECCOMP, 1, 1, ctypes.create_string_buffer(wanted, len(wanted))) != 0:
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")


def program() -> bytes:
    """The filter, eight bytes an instruction (code, jump if true, jump if false, value)."""
    load_arch, load_number = (0x20, 0, 0, 4), (0x20, 0, 0, 0)
    numbers = sorted(CALLS.values())
    rules = [load_arch, (0x15, 1, 0, AUDIT_ARCH_X86_64), (0x06, 0, 0, KILL), load_number, (0x35, 0, 1, X32), (0x06, 0, 0, KILL)]
    for number in numbers:
        rules += [(0x15, 0, 1, number), (0x06, 0, 0, ALLOW)]
    rules.append((0x06, 0, 0, ERRNO_EPERM))
    return b"".join(struct.pack("HBBI", *r) for r in rules)


# ---- the model ---------------------------------------------------------------------------------------------------------
def _load(source: str) -> dict[str, Any]:
    """What the code may import has to be loaded before the doors close: NumPy, math, and torch where the code names it."""
    import math

    import numpy as np
    from safetensors import numpy as tensors

    from fivefold.models import torch as own

    out = {"math": math, "numpy": np, "tensors": tensors, "own": own}
    if "torch" in source:
        import torch
        import torch.nn.functional

        from fivefold.models.model import ModelSpec

        torch.set_num_threads(1)
        x, y = np.zeros((2, 16)), np.zeros(2)
        for task in ("regression", "binary", "classes"):  # what torch loads at first use

            def scores(weights: Any, x: Any) -> Any:
                return torch.nn.functional.conv2d(x.reshape(-1, 1, 4, 4), weights["w"]).flatten(1)

            own.loss_and_gradient(ModelSpec("code", task, 16, 4), scores, {"w": np.zeros((1, 1, 3, 3))}, x, y)
        own.predict(ModelSpec("code", "classes", 16, 4), scores, {"w": np.zeros((1, 1, 3, 3))}, x)
    return out


def _model(terms: dict[str, Any], libraries: dict[str, Any]) -> Any:
    """bytes of a call → arrays. The code runs here for the first time."""
    from fivefold.models.model import ModelSpec

    np, own, tensors = libraries["numpy"], libraries["own"], libraries["tensors"]
    code = compile(terms["source"], "model", "exec")
    spec = ModelSpec("code", terms["task"], 0, int(terms["outputs"]))

    def made() -> dict[str, Any]:
        """Anew for each call, so that an answer follows from what was asked, and a run that is resumed gives the same."""
        module: dict[str, Any] = {"__name__": "model"}
        exec(code, module)
        if "scores" not in module and not {"loss_and_gradient", "predict"} <= set(module):
            raise ValueError(
                "it defines neither scores(weights, x), nor loss_and_gradient(weights, x, y) and predict(weights, x)"
            )
        return module

    made()

    def serve(body: bytes) -> dict[str, Any]:
        module = made()
        scores = module.get("scores")
        given = {name: np.array(a) for name, a in tensors.load(body).items()}
        weights = {n.removeprefix("weight "): a for n, a in given.items() if n.startswith("weight ")}
        if _terms(body)["call"] == "predict":
            if scores is not None:
                return {"predicted": own.predict(spec, scores, weights, given["x"])}
            return {"predicted": np.asarray(module["predict"](weights, given["x"]), dtype=np.float64)}
        if scores is not None:
            loss, gradient = own.loss_and_gradient(spec, scores, weights, given["x"], given["y"])
        else:
            loss, gradient = module["loss_and_gradient"](weights, given["x"], given["y"])
        found = {f"gradient {n}": np.asarray(g, dtype=np.float64) for n, g in gradient.items()}
        return found | {"loss": np.asarray(loss, dtype=np.float64)}

    return serve


def _terms(body: bytes) -> dict[str, str]:
    from fivefold.models.safetensors import about

    return about(body)


def _dump(arrays: dict[str, Any]) -> bytes:
    from fivefold.models.safetensors import dump

    return dump(arrays)


def _sentence(error: BaseException) -> bytes:
    return f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:300]


# ---- frames ------------------------------------------------------------------------------------------------------------
def write_frame(pipe: int, body: bytes, kind: bytes = b"C") -> None:
    """Raises `OSError` where the other end is gone."""
    data = memoryview(kind + struct.pack("<Q", len(body)) + body)
    while data:
        data = data[os.write(pipe, data[: 1 << 20]) :]


def read_frame(pipe: int) -> tuple[bytes, bytes]:
    """Kind and body. Raises `EOFError` at the end, and for a frame of more than 2 GiB."""
    head = _exactly(pipe, 9)
    (size,) = struct.unpack("<Q", head[1:])
    if size > MOST_FRAME:
        raise EOFError
    return head[:1], _exactly(pipe, size)


def _exactly(pipe: int, size: int) -> bytes:
    parts, left = [], size
    while left:
        part = os.read(pipe, min(left, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    sys.exit("this is started by fivefold.models.user_code")
