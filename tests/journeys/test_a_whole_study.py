"""A whole study from draft to published package: four roles, five sites, every act by the command that its person would type.

The lead asks; at each site a custodian answers for the rows, with a register of people and a reviewer; an operator runs the
coordinator; two output checkers let results go. In the end an auditor finds the same story at both sides.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.lung import data
from examples.prepare import fill, fingerprint, public_key, write_rows
from fivefold.cli.main import run
from fivefold.coordinator import sealing
from fivefold.records.audit import entries, verify
from tests.records.repository_double import TOKEN, repository

LUNG = Path(data.__file__).parent
UNTIL = "2030-12-31"
SAFES = """
people:
  required: [lead, checker]
  training:
    - {course: data-protection, roles: [lead, checker]}
    - {course: disclosure-control, roles: [checker]}
projects: {reviewers: 1, organisations: 1, public_benefit: true, data_sharing: agreement.pdf}
settings: {engines: [local], encryption: true}
data: {unreadable: 1, missing: 30}
"""
AGREEMENT = b"%PDF what the institutions agreed on"


@dataclass(frozen=True)
class Desk:
    """Everybody's desk on one machine."""

    out: Path

    @property
    def study(self) -> Path:
        return self.out / "study.signed.json"

    @property
    def sites(self) -> list[Path]:
        return sorted((self.out / "sites").iterdir())

    def key(self, who: str) -> str:
        return str(self.out / f"{who}.key")

    def does(self, *words: object, code: int = 0) -> None:
        assert run([str(w) for w in words]) == code, words

    def states(self, capsys: pytest.CaptureFixture[str], of: Path | None = None) -> set[str]:
        """The state of the study at each site: as the sites tell it, or as the run's own log does."""
        capsys.readouterr()
        self.does("study", "life", of or self.study, "--json")
        told = json.loads(capsys.readouterr().out)
        assert len(told) == 5
        assert not [void for one in told for void in one.get("void", ())]
        return {one["state"] for one in told}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    it = Desk(tmp_path / "desk")
    it.out.mkdir()
    for who in ("lead", "first", "second", "reviewer"):
        it.does("keys", "new", it.key(who))
    monkeypatch.setenv(sealing.KEY_PLACE, it.key("coordinator"))
    return it


def drafted(it: Desk) -> None:
    """Each site makes its folder and keys; the lead writes the study with them, and signs it."""
    values = {"the lead's key": public_key(it.out / "lead.key")}
    values |= {f"the {n} checker's key": public_key(it.out / f"{n}.key") for n in ("first", "second")}
    frame, _ = data.pooled()
    for name, rows in frame.groupby("site", sort=True):
        folder = it.out / "sites" / str(name)
        it.does("site", "init", folder, "--name", name, "--custodian", f"Custodian of {name}")
        shutil.copy(LUNG / "sites" / str(name) / "mapping.yaml", folder)
        write_rows(folder, data.as_held(str(name), rows))
        node = public_key(folder / "keys" / "node.key")
        values |= {f"the key of {name}": node, f"the fingerprint of {name}": fingerprint(node)}
    shutil.copy(LUNG / "dictionary.yaml", it.out)
    shutil.copy(LUNG / "study.yaml", it.out)
    it.does("study", "check", it.out / "study.yaml")
    it.does("study", "check", it.out / "study.yaml", "--ready", code=12)  # a draft: the keys are still open
    fill(LUNG / "study.yaml", it.out / "study.yaml", values)
    text = (it.out / "study.yaml").read_text("utf-8")
    more = f"  public_benefit: Better advice for patients\n  data_sharing: {hashlib.sha256(AGREEMENT).hexdigest()}\n"
    (it.out / "study.yaml").write_text(text.rstrip() + "\n" + more, "utf-8")
    it.does("study", "check", it.out / "study.yaml", "--ready")
    it.does("study", "sign", it.out / "study.yaml", "--key", it.key("lead"))
    for folder in it.sites:
        own = {"the custodian's key": public_key(folder / "keys" / "custodian.key")}
        fill(LUNG / "sites" / folder.name / "site.yaml", folder / "site.yaml", values | own)
        with (folder / "site.yaml").open("a", encoding="utf-8") as file:
            file.write(SAFES)
        it.does("site", "sign-policy", "--site", folder)


def reviewed_and_approved(it: Desk, folder: Path) -> None:
    """What has to come together at one site before its custodian's approval counts."""
    here = ("--site", folder)
    it.does("policy", "test", it.study, *here, "--denied", code=32)
    it.does("site", "approve", it.study, "--yes", *here, code=32)
    people = [("lead", "Lead of the example", "lead", "Trial office"), ("reviewer", "Rita Review", "reviewer", "Ethics board")]
    people += [(n, f"{n.capitalize()} output checker", "checker", "Statistics office") for n in ("first", "second")]
    for who, name, role, house in people:
        grant = ("--name", name, "--role", role, "--organisation", house, "--until", UNTIL)
        it.does("site", "people", "grant", public_key(it.out / f"{who}.key"), *grant, *here)
        for course in {"lead": ["data-protection"], "checker": ["data-protection", "disclosure-control"]}.get(role, []):
            it.does("site", "people", "train", public_key(it.out / f"{who}.key"), "--course", course, "--until", UNTIL, *here)
    (folder / "agreement.pdf").write_bytes(AGREEMENT)
    it.does("site", "approve", it.study, "--yes", *here, code=32)  # nobody has reviewed it yet
    it.does("site", "review", it.study, "--key", it.key("lead"), *here, code=32)  # and nobody reviews their own
    it.does("site", "review", it.study, "--key", it.key("reviewer"), *here)
    it.does("policy", "test", it.study, *here, "--engine", "local")
    it.does("site", "approve", it.study, "--yes", *here)
    it.does("site", "prepare", it.study, *here)


def test_from_draft_to_published_package(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    it, place = desk, desk.out / "runs" / "first"
    drafted(it)
    assert it.states(capsys) == {"proposed"}
    for folder in it.sites[:2]:
        reviewed_and_approved(it, folder)
    asked = ("run", it.out / "study.yaml", "--sealed", "--quiet")
    it.does(*asked, "--out", it.out / "runs" / "early", code=37)  # two approvals open no other site
    for folder in it.sites[2:]:
        reviewed_and_approved(it, folder)
    assert it.states(capsys) == {"approved", "running"}  # the two had opened that run, and answered nothing in it

    it.does(*asked, "--out", place)  # the operator
    assert it.states(capsys) == it.states(capsys, place) == {"outputs held"}
    it.does("crate", "build", place, code=59)

    it.does("outputs", "request", place, "--key", it.key("lead"), "--purpose", "a paper")
    words = ("outputs", "decide", place, 1, "release", "--form", "rounded", "--key")
    it.does(*words, it.key("lead"), code=31)
    it.does(*words, it.key("first"))
    it.does("outputs", "release", place, 1, "--key", it.key("coordinator"), code=59)  # one of two has agreed
    it.does(*words, it.key("second"))
    it.does("outputs", "release", place, 1, "--key", it.key("coordinator"))
    assert it.states(capsys) == it.states(capsys, place) == {"released"}
    it.does("study", "list", it.out, "--json")
    (listed,) = json.loads(capsys.readouterr().out)["studies"]
    assert [(r["folder"], set(r["sites"].values()), r["released"]) for r in listed["runs"]] == [
        ("runs/early", {"approved", "proposed"}, 0), ("runs/first", {"released"}, 1)
    ]  # fmt: skip

    package = it.out / "runs" / "first-crate"
    it.does("crate", "build", place)
    it.does("crate", "validate", package)
    it.does("crate", "reproduce", package, "--key", it.key("first"))
    it.does("report", package, "--out", it.out / "evidence.html")
    page = (it.out / "evidence.html").read_text("utf-8")
    assert page.count("own rules said when it signed") == 4  # one for each Safe but outputs
    assert "people.required, people.training" in page
    assert "Rita" not in page  # rules travel, and nobody's name from a register
    with repository() as zenodo:
        monkeypatch.setenv("FIVEFOLD_ZENODO_URL", zenodo.base)
        monkeypatch.setenv("FIVEFOLD_ZENODO_TOKEN", TOKEN)
        it.does("crate", "publish", package, "--to", "zenodo", "--sandbox", "--yes")
        assert zenodo.deposits[1001]["submitted"]
    assert "published: 10.5072/zenodo.1001" in capsys.readouterr().out

    it.does("study", "close", place, "--key", it.key("lead"))
    for folder in it.sites:
        it.does("site", "close", it.study, "--site", folder)
        assert not list((folder / "state" / "snapshots").glob("*.snapshot"))
    assert it.states(capsys) == it.states(capsys, place) == {"closed"}
    it.does("run", it.out / "study.yaml", "--quiet", "--out", it.out / "runs" / "late", code=37)

    # The auditor: each log is whole, and tells who did what.
    it.does("audit", "verify", place / "audit.jsonl")
    for folder in it.sites:
        verify(folder / "state" / "audit.jsonl")
        told = [e.event for e in entries(folder / "state" / "audit.jsonl")]
        order = ("approval asked refused", "role granted", "training", "review signed", "snapshot", "open", "unmask")
        places = [told.index(event) for event in order]
        assert places == sorted(places), dict(zip(order, places, strict=True))
        assert told.index("review signed") < len(told) - 1 - told[::-1].index("approval") < told.index("snapshot")
        assert told.index("unmask") < told.index("release entered") < told.index("snapshot deleted")
