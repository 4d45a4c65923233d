"""What a connection over Flower must do, whatever flwr is installed: with a real SuperLink, TLS, node authentication.

The newest flwr that is admitted is tested where this file runs; 1.34 by the same tests, in an environment of its own.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fivefold.engines.flower import parcels
from fivefold.engines.flower import superlink as starting
from fivefold.engines.flower.certificates import make_connection_key, read_connection_key
from fivefold.engines.flower.connections import RunConnection, SiteConnection, register
from fivefold.engines.flower.dialect import ADMITTED, Addresses, admitted, dialect, installed
from fivefold.engines.flower.grid import flower_engine
from fivefold.engines.flower.superlink import Coordinator, admit, make, running
from fivefold.engines.flower.wire import KIND, Answer, Letter
from fivefold.errors import EngineMissing, EngineProblem, RunFolderTaken
from tests.environments import ROOT, environment

SITES = ("alder", "birch")
SIZES = (0, 1, 1 << 20, (1 << 20) + 1, (9 << 20) + 7)
"""Bytes: what travels in the message, and what travels as one object, and as three."""
T = TypeVar("T")


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    folder = tmp_path_factory.mktemp("superlink")
    coordinator = make(folder / "coordinator", ["localhost", "127.0.0.1"])
    first, late = (make_connection_key(keys(folder, name)).encode() for name in SITES)
    assert admit(coordinator, SITES[0], first)
    registered = starting._registered

    def and_another(*arguments: Any) -> None:
        """Somebody is admitted after the list of sites was read, and before the SuperLink is said to be ready."""
        registered(*arguments)
        admit(coordinator, SITES[1], late)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starting, "_registered", and_another)
        with running(coordinator):
            yield coordinator


def keys(folder: Path, name: str) -> Path:
    (folder / name).mkdir(exist_ok=True)
    return folder / name


@contextmanager
def site(superlink: Coordinator, name: str, *, leave: bool = True) -> Iterator[tuple[SiteConnection, int]]:
    """A connected site and its node id. Without `leave` it is gone as one that was killed is."""
    key = read_connection_key(superlink.path.parent / name)
    one = SiteConnection(superlink.address(), superlink.authority, key)
    node = 0
    try:
        node = one.connect()
        yield one, node
    finally:
        if not leave:
            one._node = None
        one.close()


@contextmanager
def run(superlink: Coordinator) -> Iterator[RunConnection]:
    link = RunConnection(superlink.addresses(), superlink.authority, superlink.secret())
    try:
        yield link
    finally:
        link.close()


def soon(ask: Callable[[], T | None]) -> T:
    """What comes, asked for again and again for half a minute."""
    end = time.monotonic() + 30
    while (found := ask()) is None or found == []:
        assert time.monotonic() < end, "it did not come"
    return found


def asked(link: RunConnection, one: SiteConnection, node: int, payload: bytes) -> Letter:
    (id,) = link.push({node: payload}, 60.0)
    letter = soon(one.receive)
    assert letter.id == id
    return letter


def test_the_flwr_installed_is_one_that_is_admitted() -> None:
    assert admitted(installed()) in ADMITTED.values()
    for other in ("", "1.35.0", "1.42.1", "2.0.0"):
        with pytest.raises(EngineMissing, match=r"1\.34 and 1\.41"):
            admitted(other)


@pytest.mark.parametrize("size", SIZES)
def test_bytes_go_and_come_back_unchanged(superlink: Coordinator, size: int) -> None:
    there, back = os.urandom(size), os.urandom(size)
    with run(superlink) as link, site(superlink, "alder") as (one, node):
        letter = asked(link, one, node, there)
        assert (letter.kind, letter.payload) == (KIND, there)
        assert one.receive() is None, "a letter is handed out once"
        assert link.pull([letter.id]) == []
        one.reply(letter, back or b"-")
        assert soon(lambda: link.pull([letter.id])) == [Answer(letter.id, node, back or b"-")]


def test_letters_of_two_runs_and_two_sites_do_not_mix(superlink: Coordinator) -> None:
    with ExitStack() as stack:
        links = [stack.enter_context(run(superlink)) for _ in range(2)]
        nodes = [stack.enter_context(site(superlink, name)) for name in SITES]
        sent = [link.push({node: b"%d %d" % (i, node) for _, node in nodes}, 60.0) for i, link in enumerate(links)]
        assert all(set(ids.values()) == {node for _, node in nodes} for ids in sent)
        for one, node in nodes:
            letters = [soon(one.receive) for _ in links]
            assert {x.payload for x in letters} == {b"0 %d" % node, b"1 %d" % node}
            assert len({x.run for x in letters}) == 2
            for letter in letters:
                one.reply(letter, b"to " + letter.payload)
        for i, (link, ids) in enumerate(zip(links, sent, strict=True)):
            found = {a.to: a for id in ids for a in soon(partial(link.pull, [id]))}
            assert {(a.to, a.node, a.payload) for a in found.values()} == {(x, n, b"to %d %d" % (i, n)) for x, n in ids.items()}


def test_what_is_not_for_fivefold_is_not_fetched_and_can_be_declined(
    superlink: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run(superlink) as link, site(superlink, "alder") as (one, node):
        with monkeypatch.context() as changed:
            changed.setattr(parcels, "KIND", "train")
            letter = asked(link, one, node, bytes(2 << 20))
        assert (letter.kind, letter.payload) == ("train", b"")
        one.decline(letter, "not here")
        assert soon(lambda: link.pull([letter.id])) == [Answer(letter.id, node, None)]


def test_bytes_that_nobody_sent_as_ours_are_read_as_none(superlink: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of another shape under our kind of message."""
    from flwr.app import ConfigRecord, RecordDict

    real = parcels.message_of
    strange = RecordDict({"fivefold": ConfigRecord({"bytes": 3})})
    with run(superlink) as link, site(superlink, "alder") as (one, node), monkeypatch.context() as changed:
        changed.setattr("fivefold.engines.flower.connections.message_of", lambda content, **k: real(strange, **k))
        assert asked(link, one, node, b"x").payload == b""


def test_signs_of_life_are_seen(superlink: Coordinator) -> None:
    with run(superlink) as link:
        with site(superlink, "alder") as (one, node):
            before = {s.node: s for s in link.nodes()}
            assert set(before) == {node}
            one.alive(True)
            busy = {s.node: s for s in link.nodes()}[node]
            one.alive(False)
            idle = {s.node: s for s in link.nodes()}[node]
            assert len({before[node].alive_until, busy.alive_until, idle.alive_until}) == 3
            assert time.time() < busy.alive_until < idle.alive_until
        assert link.nodes() == []


def test_a_site_that_was_killed_comes_back_at_once(superlink: Coordinator) -> None:
    with site(superlink, "alder", leave=False) as (_, node):
        pass
    key = read_connection_key(superlink.path.parent / "alder")
    again = SiteConnection(superlink.address(), superlink.authority, key)
    assert again.connect(node) == node
    with run(superlink) as link:
        assert asked(link, again, node, b"there again").payload == b"there again"
    again.close()


def test_a_letter_that_can_never_be_answered_is_an_answer_without_bytes(superlink: Coordinator) -> None:
    with run(superlink) as link, site(superlink, "alder") as (one, node):
        (id,) = link.push({node: b"soon too late"}, 0.5)
        assert soon(lambda: link.pull([id])) == [Answer(id, link.pull([id])[0].node, None)]
        assert one.receive() is None


def test_who_is_not_admitted_is_told_so(superlink: Coordinator) -> None:
    folder = superlink.path.parent
    public = make_connection_key(keys(folder, "cedar")).encode()
    with pytest.raises(PermissionError), site(superlink, "cedar"):
        pass
    assert register(superlink.addresses(), superlink.authority, public, "cedar")
    assert not register(superlink.addresses(), superlink.authority, public, "cedar")
    with site(superlink, "cedar") as (_, node):
        assert node


def test_nobody_attaches_without_the_secret_or_trusts_another_authority(superlink: Coordinator, tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        RunConnection(superlink.addresses(), superlink.authority, bytes(32))
    stranger = make(tmp_path, ["127.0.0.1"])
    with pytest.raises(ConnectionError):
        RunConnection(superlink.addresses(), stranger.authority, superlink.secret())
    key = read_connection_key(superlink.path.parent / "alder")
    fooled = SiteConnection(superlink.address(), stranger.authority, key)
    with pytest.raises(ConnectionError):
        fooled.connect()
    fooled.close()


def test_a_superlink_elsewhere_is_no_address_or_cannot_be_attached_to(superlink: Coordinator) -> None:
    with pytest.raises(EngineProblem, match="opens a port to sites alone" if dialect().PORTS > 1 else "does not answer"):
        flower_engine(superlink.path, {}, address="127.0.0.1:1")


def test_one_superlink_a_folder(superlink: Coordinator) -> None:
    assert Addresses.read(superlink.addresses().text()) == superlink.addresses()
    assert len(superlink.addresses().all) == dialect().PORTS
    with pytest.raises(RunFolderTaken), running(superlink):
        pass


def test_a_superlink_that_has_gone_is_a_lost_connection(tmp_path: Path) -> None:
    coordinator = make(tmp_path / "coordinator", ["127.0.0.1"])
    admit(coordinator, "alder", make_connection_key(keys(tmp_path, "alder")).encode())
    with ExitStack() as stack:
        with running(coordinator):
            one, node = stack.enter_context(site(coordinator, "alder"))
            link = stack.enter_context(run(coordinator))
            letter = asked(link, one, node, b"anybody?")
        for ask in (
            one.receive,
            lambda: one.alive(True),
            lambda: one.reply(letter, b"here"),
            link.nodes,
            lambda: link.push({node: b"x"}, 1.0),
            lambda: link.pull([letter.id]),
            lambda: register(Addresses.read("127.0.0.1:1"), coordinator.authority, b"", "x"),
        ):
            with pytest.raises(ConnectionError):
                ask()


if not installed().startswith("1.34."):

    def test_all_this_holds_over_flwr_1_34() -> None:
        command = [
            environment("flwr134") / "python",
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            Path(__file__),
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "passed" in done.stdout
