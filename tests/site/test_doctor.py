"""`fivefold doctor`: a healthy site is ready; each thing that would stop a run is a fault with its next step."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.cli.main import run
from fivefold.data.synthetic import synthetic
from fivefold.engines.flower.certificates import make_authority, make_connection_key, make_server
from fivefold.engines.reachability import reached
from fivefold.governance.approvals import approve
from fivefold.site.doctor import Check, examined
from fivefold.study.definition import Agreements
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
    http.handle_error = lambda *_: None  # type: ignore[method-assign]
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
    assert {c.name: c.state for c in reached(*server, NOW + timedelta(days=380))}["server certificate"] == "warning"


def test_a_coordinator_that_is_another_or_away(server: tuple[str, Path], tmp_path: Path, consortium: Any) -> None:
    other = tmp_path / "other"
    other.mkdir()
    make_authority(other)
    make_connection_key(consortium.site.keys)
    assert "server certificate" in faults(reached(server[0], other / "ca.pem", NOW))
    assert "port" in faults(reached("127.0.0.1:1", server[1], NOW))
    assert "port" in faults(reached("nowhere", server[1], NOW))
    assert "root certificate" in faults(reached(server[0], tmp_path / "none.pem", NOW))
