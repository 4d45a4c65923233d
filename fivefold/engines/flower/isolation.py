"""Take the network away from this process, for good: it keeps its open pipes, and can reach nobody.

Where the kernel lets a process have a network namespace of its own (Linux; root, or unprivileged user namespaces), it gets an
empty one. Elsewhere on Linux a seccomp filter refuses every new socket but local ones. Where neither is to be had, the site
refuses to start rather than answer with an open door.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct

from fivefold.errors import EngineProblem

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SOCKET_CALL = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Machine → (audit architecture, number of the system call `socket`), from the kernel's audit.h and unistd.h."""
ALLOW, DENY, KILL = 0x7FFF0000, 0x00050000 | 13, 0x80000000


def leave_network(*, namespaces: bool = True) -> str:
    """Returns how: `namespace` or `seccomp`. Raises `EngineProblem` where neither works, or a socket still reaches out."""
    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    how = ""
    if libc is not None and platform.system() == "Linux":
        if namespaces and (libc.unshare(CLONE_NEWNET) == 0 or libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0):
            how = "namespace"
        elif _filter(libc):
            how = "seccomp"
    if not how or _reaches_out():
        raise EngineProblem(
            "this system does not let the answering process give up its network",
            help="Run the site on Linux (x86-64 or aarch64), where it needs no privilege for that.",
        )
    return how


def _filter(libc: ctypes.CDLL) -> bool:
    """A filter in classic BPF: another architecture is killed, `socket` of any family but AF_UNIX gets EACCES."""
    known = SOCKET_CALL.get(platform.machine())
    if known is None:
        return False
    audit, call = known
    code = [
        (0x20, 0, 0, 4),  # load the architecture
        (0x15, 1, 0, audit),
        (0x06, 0, 0, KILL),
        (0x20, 0, 0, 0),  # load the number of the call
        (0x15, 0, 3, call),
        (0x20, 0, 0, 16),  # load the first argument, the family
        (0x15, 1, 0, socket.AF_UNIX),
        (0x06, 0, 0, DENY),
        (0x06, 0, 0, ALLOW),
    ]
    program = b"".join(struct.pack("<HBBI", *line) for line in code)
    kept = ctypes.create_string_buffer(program)
    head = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(kept)))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return bool(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0) == 0)


def _reaches_out() -> bool:
    """Whether a datagram socket to a public address still finds a way (nothing is sent)."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect(("192.0.2.1", 9))
    except OSError:
        return False
    return True
