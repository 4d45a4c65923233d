"""The doctor at a FLARE client: who may bring code, which classes may be loaded, whose shell it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fivefold.cli.main import run
from fivefold.engines.flare.job import CLASSES, LOG_STREAMER, write_allow_list
from fivefold.engines.flare.workspace import examined
from fivefold.site.folder import create
from tests.environments import environment

NOBODY = {"lead": {"submit_job": "any", "byoc": "none"}, "member": {"view": "any"}}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """As it should be."""
    local = tmp_path / "client" / "local"
    write_allow_list(local)
    permit(local, NOBODY)
    return local.parent


def permit(local: Path, roles: Any, name: str = "authorization.json") -> None:
    (local / name).write_text(json.dumps({"format_version": "1.0", "permissions": roles}), "utf-8")


def state(workspace: Path, name: str) -> tuple[str, str]:
    (found,) = [c for c in examined(workspace) if c.name == name]
    assert found.next or found.state == "ok"
    return found.state, found.said


@pytest.mark.parametrize(
    ("roles", "who"),
    [
        ({**NOBODY, "project_admin": "any"}, "project_admin"),
        ({"lead": {"byoc": "any"}, "org_admin": {"BYOC": ["o:site", "none"]}}, "lead, org_admin"),
        ({"lead": {"*": "n:submitter", "byoc": "none"}}, "lead"),
    ],
)
def test_who_may_bring_code_is_a_fault(workspace: Path, roles: Any, who: str) -> None:
    assert state(workspace, "FLARE byoc") == ("ok", "no job may bring its own code")
    permit(workspace / "local", roles)
    assert state(workspace, "FLARE byoc") == ("fault", f"jobs of {who} may bring their own code, past every gate")


def test_what_flare_provisions_is_read_where_the_site_wrote_nothing(workspace: Path) -> None:
    (workspace / "local" / "authorization.json").unlink()
    assert state(workspace, "FLARE byoc")[0] == "fault"
    permit(workspace / "local", NOBODY, "authorization.json.default")
    assert state(workspace, "FLARE byoc")[0] == "ok"
    (workspace / "local" / "authorization.json").write_text("no JSON", "utf-8")
    assert state(workspace, "FLARE byoc")[0] == "fault"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"class_allow_list": [CLASSES[1]]}, "ok"),
        ({"class_allow_list": ["fivefold.engines.flare.shell"]}, "warning"),
        ({"class_allow_list": [*CLASSES, "nvflare.app_common.np"]}, "warning"),
        ({"class_allow_list": ["fivefold.engines.flare.shell.Site"]}, "fault"),
        ({"class_allow_list": [*CLASSES, "*"]}, "fault"),
        ({"class_allow_list": [*CLASSES], "class_list_enforcement_mode": "warn"}, "fault"),
        ({}, "fault"),
    ],
)
def test_which_classes_a_job_may_load(workspace: Path, resources: Any, expected: str) -> None:
    (workspace / "local" / "resources.json").write_text(json.dumps(resources), "utf-8")
    assert state(workspace, "FLARE classes")[0] == expected


def test_a_site_s_log_stays_at_the_site(workspace: Path) -> None:
    """What FLARE provisions sends it, and adds a class to every job for that."""
    file = workspace / "local" / "resources.json"
    assert state(workspace, "FLARE logs") == ("ok", "no job sends this site's log to the server")
    provisioned = {
        "components": [{"id": "a", "path": LOG_STREAMER}, {"id": "b", "path": "kept"}],
        "client": {"retry_timeout": 30},
    }
    file.write_text(json.dumps(provisioned), "utf-8")
    assert state(workspace, "FLARE logs")[0] == "fault"
    file.write_text(json.dumps({"components": []}), "utf-8")
    assert state(workspace, "FLARE logs")[0] == "warning"
    file.rename(file.with_suffix(".json.default"))
    file.with_suffix(".json.default").write_text(json.dumps(provisioned), "utf-8")
    written = json.loads(write_allow_list(workspace / "local").read_text("utf-8"))
    assert (written["components"], written["client"]) == (provisioned["components"][1:], {"retry_timeout": 30})
    assert state(workspace, "FLARE logs")[0] == "ok"


def test_another_fivefold_before_the_sites_own_is_a_fault(workspace: Path) -> None:
    (workspace / "local" / "custom" / "fivefold").mkdir(parents=True)
    assert state(workspace, "FLARE shell")[0] == "fault"


def test_the_doctor_says_so(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create(tmp_path / "site", "basel")
    words = ["doctor", "--site", str(tmp_path / "site"), "--json", "--flare"]
    run([*words, str(workspace)])
    found = {c["name"]: c["state"] for c in json.loads(capsys.readouterr().out)["checks"]}
    assert (found["FLARE byoc"], found["FLARE classes"]) == ("ok", "ok")
    assert run([*words, str(tmp_path)]) == 1
    assert "FLARE workspace" in capsys.readouterr().out


def test_beside_nvflare_the_shell_is_the_sites_own_and_flare_reads_the_files_alike(workspace: Path) -> None:
    """In FLARE's environment; FLARE's own reader of the right `byoc` is the oracle."""
    code = """
import json, sys
from pathlib import Path
from fivefold.engines.flare.workspace import _denied, examined
from nvflare.fuel.sec.authz import AuthzContext, Person, parse_policy_config
print(next(examined(Path(sys.argv[1]))).state)
for rights in ("any", "none", {"byoc": "any"}, {"byoc": "none"}, {"view": "any"}, {"Byoc": "none"}, {"byoc": ["none"]}):
    policy, err = parse_policy_config({"format_version": "1.0", "permissions": {"lead": rights}}, {})
    person = Person("a", "b", "lead")
    may, _ = policy.evaluate("b", AuthzContext(user=person, submitter=person, right="byoc"))
    assert may is not _denied(rights), (rights, err)
"""
    command = [environment("flare") / "python", "-c", code, workspace]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
