"""`fivefold doctor`: a healthy site is ready; each thing that would stop a run is a fault with its next step."""

from __future__ import annotations

import json
import shutil
import ssl
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.cli.main import run
from fivefold.data.synthetic import synthetic
from fivefold.engines import reachability
from fivefold.engines.flower.certificates import CONNECTION_KEY, make_authority, make_connection_key, make_server
from fivefold.engines.reachability import reached, way_out
from fivefold.governance.approvals import approve
from fivefold.site import doctor
from fivefold.site.doctor import Check, examined, rehearsed
from fivefold.site.folder import create
from fivefold.study.definition import Agreements, Cohort
from fivefold.study.digest import load_signed

NOW = datetime.now(UTC)
LATER = (NOW + timedelta(days=90)).date().isoformat()


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def found(consortium: Any, tmp_path: Path) -> Any:
    file = tmp_path / "study.signed.json"
    file.write_bytes(consortium.signed(agreements=Agreements("EK 2026-1", "research", LATER)).to_bytes())
    return load_signed(file)


@pytest.fixture
def approved(consortium: Any, found: Any) -> Any:
    approve(consortium.site.path, found.study, found.digest, consortium.custodian)
    return found


def faults(checks: Iterator[Check]) -> dict[str, Check]:
    return {c.name: c for c in checks if c.state == "fault"}


def test_a_site_that_is_ready(consortium: Any, approved: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study.signed.json"
    assert run(["doctor", "--site", str(consortium.site.path), "--study", str(study), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ready"]
    states = {c["name"]: c["state"] for c in said["checks"]}
    assert states["custodian's key"] == "warning"
    assert {states[n] for n in ("policy", "node key", "key files", "audit log", "mapping", "study", "data", "rehearsal")} == {
        "ok"
    }


def test_each_fault_has_a_next_step(consortium: Any, found: Any) -> None:
    site = consortium.site
    (site.keys / "node.key").chmod(0o644)
    (site.path / "rows.csv").unlink()
    said = faults(examined(site, found, NOW))
    assert set(said) == {"key files", "node key", "study", "data"}
    assert all(check.next for check in said.values())
    assert "chmod 600" in said["key files"].next
    (site.keys / "node.key").chmod(0o600)
    assert "fivefold site approve" in faults(examined(site, found, NOW))["study"].next


def test_what_expires_is_told_in_time(consortium: Any, approved: Any) -> None:
    soon = {c.name: c.state for c in examined(consortium.site, approved, NOW + timedelta(days=80))}
    assert soon["study"] == "warning"
    late = faults(examined(consortium.site, approved, NOW + timedelta(days=1000)))
    assert {"policy", "study"} <= set(late)


def test_a_custodian_whose_key_ends_is_told_in_time(consortium: Any) -> None:
    def said(days: int) -> dict[str, Check]:
        return {c.name: c for c in examined(consortium.site, None, NOW + timedelta(days=days))}

    until = next(iter(consortium.site.custody(NOW).custodians.values())).until
    left = (date.fromisoformat(str(until)) - NOW.date()).days
    assert said(0)["custodian"].state == "ok"
    assert said(left - 10)["custodian"].state == "warning"
    over = said(left + 1)["policy"]  # it was the only one: nobody's signature holds the policy
    assert over.state == "fault"
    assert over.next


def test_a_full_disk_and_a_state_folder_that_is_away(consortium: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk() -> list[tuple[str, bool]]:
        return [(c.state, bool(c.next)) for c in examined(consortium.site, None, NOW) if c.name == "disk"]

    assert disk() == [("ok", False)]
    monkeypatch.setattr(doctor, "DISK_WARNING", 1 << 62)
    assert disk() == [("warning", True)]
    monkeypatch.setattr(doctor, "DISK_FAULT", 1 << 62)
    assert disk() == [("fault", True)]
    monkeypatch.undo()
    shutil.rmtree(consortium.site.state)
    assert disk() == [("ok", False), ("fault", True)]


def test_a_mapping_that_is_still_to_be_written(tmp_path: Path) -> None:
    (check,) = (c for c in examined(create(tmp_path / "new", "basel"), None, NOW) if c.name == "mapping")
    assert check.state == "warning"
    assert "mapping.yaml" in check.next


def test_a_log_in_which_a_line_was_changed(consortium: Any, approved: Any) -> None:
    assert not faults(examined(consortium.site, approved, NOW))
    log = consortium.site.state / "audit.jsonl"
    log.write_text(log.read_text("utf-8").replace('"basel"', '"bern"', 1), "utf-8")
    said = faults(examined(consortium.site, None, NOW))
    assert set(said) == {"audit log"}
    assert said["audit log"].next


def test_too_few_persons_for_the_study_or_for_a_rehearsal(consortium: Any, found: Any) -> None:
    consortium.write_rows(rows=4)
    fault = faults(examined(consortium.site, found, NOW))["data"]
    assert "4 persons; 5 are needed" in fault.said
    assert "fivefold site check" in fault.next
    nobody = replace(found.study, cohort=Cohort(include=("age >= 120",)))
    (check,) = rehearsed(consortium.site, nobody)
    assert check.state == "warning"
    assert "fivefold site rehearse" in check.next


def test_without_a_study_it_says_what_was_not_looked_at(consortium: Any) -> None:
    last = [*examined(consortium.site, None, NOW)][-1]
    assert (last.name, last.state) == ("study", "warning")
    assert "--study" in last.next


def test_an_altered_policy_and_a_bad_mapping_are_faults(
    consortium: Any, approved: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    consortium.rewrite("minimum_persons: 5", "minimum_persons: 4")
    (consortium.site.path / "mapping.yaml").write_text("source: 3\n")
    assert {"policy", "mapping", "study"} <= set(faults(examined(consortium.site, approved, NOW)))
    assert run(["doctor", "--site", str(consortium.site.path)]) == 1
    assert "not ready" in capsys.readouterr().out


def test_the_rehearsal_meets_the_policy_that_the_day_will_meet(consortium: Any) -> None:
    study = consortium.signed(agreements=Agreements("EK 2026-1", "research", LATER)).study
    consortium.rewrite('"statistics", "glm"', '"statistics"')
    consortium.rewrite("version: 1", "version: 2")
    from fivefold.governance.custody import sign_policy

    sign_policy(consortium.site.path, consortium.custodian)
    assert {"study", "rehearsal"} <= set(faults(examined(consortium.site, study, NOW)))


def test_synthetic_rows_fit_the_dictionary(consortium: Any) -> None:
    table = synthetic(consortium.study, "basel")
    assert table.persons == len(table) > 1000
    assert np.nanmin(table["age"]) >= 18
    assert np.nanmax(table["weight"]) <= 300
    assert set(np.unique(table["sex"][~np.isnan(table["sex"])])) == {0.0, 1.0}
    assert np.array_equal(table["weight"], synthetic(consortium.study, "basel")["weight"], equal_nan=True)


# ---- the way to the coordinator ---------------------------------------------------------------------------------------
class Late(BaseHTTPRequestHandler):
    """Answers with a clock of its own."""

    ahead = timedelta(0)

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return (datetime.now(UTC) + self.ahead).strftime("%a, %d %b %Y %H:%M:%S GMT")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "coordinator"
    folder.mkdir()
    make_authority(folder)
    make_server(folder, ["localhost", "127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    http = HTTPServer(("127.0.0.1", 0), Late)
    http.handle_error = lambda *_: None
    http.socket = context.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{http.server_port}", folder / "ca.pem"
    http.shutdown()
    http.server_close()
    thread.join()


def test_a_coordinator_that_is_there(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    states = {c.name: c.state for c in reached(*server, NOW)}
    assert states == dict.fromkeys(("root certificate", "port", "server certificate", "clock"), "ok")
    monkeypatch.setattr(Late, "ahead", timedelta(hours=2))
    assert set(faults(reached(*server, NOW))) == {"clock"}
    monkeypatch.setattr(Late, "ahead", timedelta(seconds=-20))
    assert {c.name: c.state for c in reached(*server, NOW)}["clock"] == "warning"
    assert {c.name: c.state for c in reached(*server, NOW + timedelta(days=380))}["server certificate"] == "warning"
    late = faults(reached(*server, NOW + timedelta(days=5000)))
    assert {"root certificate", "server certificate"} <= set(late)
    assert all("expired" in check.said and check.next for check in late.values())


def test_a_coordinator_that_is_another_or_away(server: tuple[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    make_authority(other)
    assert "server certificate" in faults(reached(server[0], other / "ca.pem", NOW))
    assert "port" in faults(reached("127.0.0.1:1", server[1], NOW))
    for address in ("nowhere", ":8443", "127.0.0.1:99999", "127.0.0.1:0"):
        assert "HOST:PORT" in faults(reached(address, server[1], NOW))["port"].next
    assert "root certificate" in faults(reached(server[0], tmp_path / "none.pem", NOW))


def test_what_a_site_needs_to_start_and_lacks(
    server: tuple[str, Path], consortium: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = consortium.site.keys
    assert "fivefold site connection" in faults(way_out(consortium.site, *server, NOW))["connection key"].next
    make_connection_key(keys)
    assert not faults(way_out(consortium.site, *server, NOW))
    (keys / CONNECTION_KEY).chmod(0o644)
    assert "chmod 600" in faults(way_out(consortium.site, *server, NOW))["connection key"].next
    (keys / CONNECTION_KEY).unlink()
    shutil.copy(keys / "node.key", keys / CONNECTION_KEY)
    for found in ("", "1.35.0"):
        monkeypatch.setattr(reachability, "installed", lambda found=found: found)
        monkeypatch.setattr(sys, "executable", shutil.which("false"))
        said = faults(way_out(consortium.site, *server, NOW))
        assert set(said) == {"connection key", "flwr", "isolation"}
        assert all(check.next for check in said.values())
