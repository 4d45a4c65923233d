"""The job folder that FLARE gets, and the connection behind it; FLARE itself is in the journey."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from examples import prepare
from fivefold.cli.main import run
from fivefold.engines.flare import relay
from fivefold.engines.flare.job import CLASSES, site_folder, write_allow_list
from fivefold.engines.flare.simulator import interpreter
from fivefold.errors import EngineFailed, EngineMissing, SourceNotFound


@pytest.fixture(scope="module")
def lung(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("flare") / "lung"
    assert prepare.main(["lung", str(out)]) == 0
    return out


def test_a_job_holds_the_signed_study_and_names_of_classes_and_no_code(lung: Path, tmp_path: Path) -> None:
    assert run(["export", "flare", str(lung / "study.yaml"), str(tmp_path / "job"), "--deadline", "90"]) == 0
    files = {str(p.relative_to(tmp_path / "job")) for p in (tmp_path / "job").rglob("*") if p.is_file()}
    config = tmp_path / "job" / "app" / "config"
    assert files == {
        "meta.json",
        "app/config/config_fed_client.json",
        "app/config/config_fed_server.json",
        "app/config/study.signed.json",
    }
    assert (config / "study.signed.json").read_bytes() == (lung / "study.signed.json").read_bytes()
    server = json.loads((config / "config_fed_server.json").read_text())
    client = json.loads((config / "config_fed_client.json").read_text())
    assert (server["workflows"][0]["path"], client["executors"][0]["executor"]["path"]) == CLASSES
    assert server["workflows"][0]["args"] == {"deadline": 90}
    meta = json.loads((tmp_path / "job" / "meta.json").read_text())
    assert meta["deploy_map"]["app"][0] == "server"
    assert len(meta["deploy_map"]["app"]) == 6
    assert meta["min_clients"] == 3


def test_a_job_is_not_written_over_files(lung: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").write_text("mine")
    assert run(["export", "flare", str(lung / "study.yaml"), str(tmp_path)]) == 51
    assert "already holds files" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_of_all_classes_a_party_admits_two(tmp_path: Path) -> None:
    written = json.loads(write_allow_list(tmp_path / "local").read_text())
    assert written["class_allow_list"] == list(CLASSES)
    assert all(name.startswith("fivefold.engines.flare.shell.") for name in CLASSES)


def test_where_a_site_lies_is_its_own_word() -> None:
    assert site_folder("basel", {"FIVEFOLD_SITE_FOLDER": "/srv/site"}) == Path("/srv/site")
    assert site_folder("basel", {"FIVEFOLD_SITES": "/srv/sites"}) == Path("/srv/sites/basel")
    for client in ("../basel", "..", ""):
        with pytest.raises(SourceNotFound):
            site_folder(client, {"FIVEFOLD_SITES": "/srv/sites"})
    with pytest.raises(SourceNotFound):
        site_folder("basel", {})


def connections() -> tuple[Connection, Connection]:
    one, other = socket.socketpair()
    return Connection(one.detach()), Connection(other.detach())


def test_the_relay_carries_bytes_and_leaves_the_silent_out() -> None:
    here, there = connections()

    def carry(requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        return ((name, request[::-1]) for name, request in requests.items() if name != "silent")

    thread = threading.Thread(target=relay.serve, args=(there, carry))
    thread.start()
    big = bytes(range(256)) * 20_000
    assert dict(relay.exchange(here, {"a": b"abc", "silent": b"", "b": big})) == {"a": b"cba", "b": big[::-1]}
    assert dict(relay.exchange(here, {"a": b"xyz"})) == {"a": b"zyx"}
    relay.close(here)
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_a_lost_connection_is_one_sentence() -> None:
    here, there = connections()
    there.close()
    with pytest.raises(EngineFailed, match="lost"):
        list(relay.exchange(here, {"a": b"abc"}))


def test_an_environment_without_flare_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing, match="nvflare"):
        interpreter(tmp_path)
