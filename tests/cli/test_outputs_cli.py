"""The airlock from the command line, on a run of the lung study: who may ask, who may decide, what comes out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples import prepare
from fivefold.cli.main import run
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
    assert outputs(lung, "decide", 1, "release", "--form", "suppressed", key="second-checker") == 0
    assert outputs(lung, "release", 1, key="first-checker") == 59  # and they must agree on one form
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
    assert outputs(lung, "decide", 2, "refuse", "--reason", "rounded ones are out", key="first-checker") == 0
    assert outputs(lung, "decide", 2, "release", "--form", "rounded", key="second-checker") == 58  # it is closed
