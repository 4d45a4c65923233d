"""The airlock from the command line, on a run of the lung study: who may ask, who may decide, what comes out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from examples import prepare
from fivefold.cli.main import run
from fivefold.disclosure.tables import Count, interval
from fivefold.governance.output_forms import NUMBER, absent, numbers_in
from fivefold.results.plots import draw
from fivefold.results.write import read_results


@pytest.fixture(scope="module")
def lung(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("airlock") / "lung"
    assert prepare.main(["lung", str(out)]) == 0
    assert run(["run", str(out / "study.yaml"), "--quiet", "--out", str(out / "runs" / "a")]) == 0
    return out


def outputs(lung: Path, verb: str, *words: object, key: str = "", where: str = "a") -> int:
    signed = ["--key", str(lung / f"{key}.key")] if key else []
    return run(["outputs", verb, str(lung / "runs" / where), *map(str, words), *signed])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["crate", "build", "runs/a", "--out", "c", "--key", "first-checker.key"], 15, "neither the lead's nor the coord"),
        (
            ["outputs", "request", "runs/a", "--key", "lead.key", "--purpose", "p", "--class", "x"],
            2,
            "'x' is not one of 'table'",
        ),
        (
            ["outputs", "recall", "runs/a", "1", "--key", "lead.key", "--why", "w", "--crate", "c"],
            56,
            "c is not a packed crate",
        ),
        (["site", "evidence", "study.signed.json", "--out", "study.yaml"], 51, "is something else"),
        (["site", "withdraw", "study.signed.json", "--key", "lead.key", "--out", "study.yaml"], 15, "no custodian"),
        (["site", "approve", "study.signed.json", "--yes", "--expires", "2001-01-01"], 31, "before today"),
        (["site", "keys", "rotate", "node", "--key", "lead.key"], 15, "no custodian"),
        (["site", "keys", "rotate", "node", "--until", "2030-01-01"], 2, "the node makes its own"),
        (["site", "keys", "revoke", "ab" * 32, "--reason", " "], 39, "needs a written reason"),
        (["site", "recall", "study.yaml", "study.signed.json"], 39, "send it again"),
        (["site", "init", "new", "--name", "a/b"], 32, "cannot be a site's name"),
        (["study", "life", "study.signed.json", "--sites", "none"], 2, "is no folder"),
        (["site", "start", "--superlink", "h:1", "--root-certificates", "study.yaml"], 21, "is not a certificate"),
    ],
    ids=lambda words: " ".join(words[:3]) if isinstance(words, list) else None,
)
def test_a_wrong_input_is_a_sentence_and_changes_nothing(
    words: list[str], code: int, said: str, lung: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lung)
    monkeypatch.setenv("FIVEFOLD_SITE", "sites/inst-01-02")
    logs = {"audit.jsonl", "audit.jsonl.head"}  # that somebody tried is an entry
    before = {p: p.read_bytes() for p in lung.rglob("*") if p.is_file() and p.name not in logs}
    assert run(words) == code
    assert said in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in lung.rglob("*") if p.is_file() and p.name not in logs}


def test_request_checks_decisions_release(lung: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outputs(lung, "request", "--purpose", "a paper", key="lead") == 0
    assert outputs(lung, "request", "--purpose", "mine", key="first-checker") == 31  # only the lead asks
    assert outputs(lung, "release", 1, key="first-checker") == 59  # nobody has decided

    assert outputs(lung, "decide", 1, "release", "--form", "rounded", key="lead") == 31
    assert "the lead cannot check" in capsys.readouterr().err
    assert (
        run(["outputs", "decide", str(lung / "runs" / "a"), "1", "release", "--key", str(lung / "runs/a/coordinator.key")])
        == 31
    )
    assert "a coordinator or a node cannot check" in capsys.readouterr().err
    assert outputs(lung, "decide", 1, "release", key="first-checker") == 31  # one person could be told apart
    assert outputs(lung, "decide", 1, "exception", "--reason", "it is only one", key="first-checker") == 31
    assert "No exception is possible" in capsys.readouterr().err
    assert outputs(lung, "decide", 1, "refuse", key="first-checker") == 31  # without a reason

    assert outputs(lung, "decide", 1, "release", "--form", "rounded", key="first-checker") == 0
    assert outputs(lung, "release", 1, key="first-checker") == 59  # two are needed
    assert outputs(lung, "decide", 1, "release", "--form", "suppressed", key="second-checker") == 31
    assert "5 of 5 sites object" in capsys.readouterr().err  # five deaths in an interval, less its own: few others
    assert outputs(lung, "decide", 1, "release", "--form", "rounded", key="second-checker") == 0
    capsys.readouterr()
    assert outputs(lung, "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "may be released"
    assert outputs(lung, "release", 1, key="second-checker") == 0
    assert outputs(lung, "release", 1, key="second-checker") == 59  # once

    place = lung / "runs" / "a" / "released" / "001"
    released = read_results(place)
    assert set(released) == {"description", "survival", "cox", "cox-by-site"}
    report = json.loads((place / "report.json").read_text("utf-8"))
    assert {o["status"] for o in report["results"].values()} <= {"pass", "review"}
    assert report["results"]["output_1"]["type"] == "survival"
    for name, result in released.items():  # what is drawn is drawn from the released tables: the same bytes come out again
        for number, figure in enumerate(result.figures, 1):
            for kind, image in draw(figure, result).items():
                assert (place / "plots" / f"{name}.{number}.{kind}").read_bytes() == image


def test_a_second_request_is_compared_with_the_first(lung: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = lung / "runs" / "a" / "released" / "001"
    if not place.exists():
        test_request_checks_decisions_release(lung, capsys)
    assert outputs(lung, "request", "--purpose", "the exact numbers", "--analysis", "cox", key="lead") == 0
    capsys.readouterr()
    assert outputs(lung, "check", 2, "--form", "as_is", "--json", key="first-checker") == 0
    report = json.loads(capsys.readouterr().out)
    assert [f["status"] for f in report["together"] if f["rule"] == "differencing"] == ["fail"]
    assert outputs(lung, "check", 2, "--form", "as_is", key="first-checker") == 0
    said = capsys.readouterr().out
    assert "counts of declared cells are shown; variables time, died, age" in said
    assert "   n      226; " in said
    assert outputs(lung, "decide", 2, "refuse", "--reason", "rounded ones are out", key="first-checker") == 0
    assert outputs(lung, "decide", 2, "release", "--form", "rounded", key="second-checker") == 58  # it is closed


def test_no_released_file_holds_a_number_that_is_not_in_a_released_table(
    lung: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every text file is read for numbers; figures are drawn again from the released tables (above), byte for byte."""
    place = lung / "runs" / "a" / "released" / "001"
    if not place.exists():
        test_request_checks_decisions_release(lung, capsys)
    released = read_results(place)
    values = frozenset().union(*(numbers_in(r) for r in released.values()))
    for path in place.rglob("*.csv"):
        for row in list(csv.reader(path.read_text("utf-8").splitlines()))[1:]:
            for cell in row:
                assert not NUMBER.fullmatch(cell) or float(cell) in values, (path.name, cell)
    spoken = [n for r in released.values() for n in (*r.notes, *(m for t in r.tables.values() for m in t.notes))]
    assert not [absent(sentence, values) for sentence in spoken if absent(sentence, values)]
    report = json.loads((place / "report.json").read_text("utf-8"))
    minimum = {5.0, 10.0, 0.33, 3.0}  # the rules' own numbers
    for output in report["results"].values():
        for sentence in [output["summary"], *(f["words"] for f in output["outcome"])]:
            assert not absent(sentence, values | minimum), sentence
    counts = [Count.from_plain(c) for c in json.loads((place / "release.json").read_text("utf-8"))["counts"]]
    shown = {interval(int(v), 5) for v in values if v.is_integer() and v >= 0}
    assert {(c.low, c.high) for c in counts} <= shown

    withheld = frozenset().union(*(numbers_in(r) for r in read_results(lung / "runs" / "a").values())) - values
    exact = [v for v in withheld if len(repr(v)) > 8]
    assert len(exact) > 300
    everything = b"".join(p.read_bytes() for p in place.rglob("*") if p.is_file())
    assert not [v for v in exact if repr(v).encode() in everything]
