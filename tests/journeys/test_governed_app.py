"""A user's own Flower ClientApp at real sites: refused unless approved, named and unchanged; through the gate like anything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from examples import prepare
from fivefold.coordinator import session
from fivefold.coordinator.rounds import Engine
from fivefold.engines.flower.foreign_app import APPS, files_of
from fivefold.engines.flower.grid import FlowerEngine
from fivefold.engines.local import local_engine
from fivefold.errors import NotApproved, RunError
from fivefold.protocol import messages as m
from fivefold.protocol.results import Result
from fivefold.records.audit import entries, verify
from fivefold.results.write import comparable
from tests.journeys.consortium import SITES, fivefold, sign_anew, signed
from tests.journeys.deployed_studies import write_app
from tests.journeys.deployment import Deployment, deployed

SITE = "fir"
APP = """\
import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    print("what an app prints goes nowhere")
    rows, config = np.load(context.node_config["rows"]), message.content["config"]
    weights = dict(zip(("coefficients", "intercept"), message.content["arrays"].to_numpy_ndarrays()))
    slopes, level = weights["coefficients"].copy(), weights["intercept"].copy()
    for _ in range(config["local_epochs"]):
        wrong = 1 / (1 + np.exp(-(rows["x"] @ slopes + level))) - rows["y"].reshape(-1, 1)
        slopes -= config["learning_rate"] * rows["x"].T @ wrong / len(wrong)
        level -= config["learning_rate"] * wrong.mean(axis=0)
    told = MetricRecord({"first-row": float(rows["x"][0, 0])})
    return Message(RecordDict({"arrays": ArrayRecord([slopes, level]), "told": told}), reply_to=message)
"""
ANALYSIS = """\
  - name: theirs
    method: METHOD
    formula: malignant ~ radius + texture
    options:
      model: {kind: logistic}
      rounds: 2
      local_epochs: 2
      learning_rate: 0.3
      clip: 5.0
      evaluate_every: 2
      bins: 5
"""


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The breast consortium with one analysis of an app; every policy but one names it, and nothing is prepared yet."""
    out = tmp_path_factory.mktemp("governed") / "breast"
    prepare.prepare("breast", out, "training.yaml")
    digest = write_app(out / "apps" / "logistic", APP)
    text = (out / "study.yaml").read_text("utf-8")
    first, last = text.index("  - name: averaging"), text.index("privacy:")
    theirs = ANALYSIS.replace("METHOD", "flower_app") + f"      app: logistic\n      digest: {digest}\n"
    ours = ANALYSIS.replace("METHOD", "fedavg").replace("theirs", "ours")
    sign_anew(out, f"{text[:first]}{theirs}{ours}\n{text[last:]}")
    for site in SITES:
        folder = out / "sites" / site
        shutil.copytree(out / "apps", folder / "apps")
        policy(folder, 3, ["flower_app.logistic/1"] if site != SITE else [])
        prepare.fivefold("site", "approve", out / "study.signed.json", "--site", folder, "--yes")
    return out


def policy(folder: Path, version: int, steps: list[str]) -> None:
    lines = [x for x in (folder / "site.yaml").read_text("utf-8").splitlines() if not x.startswith(("version:", "steps:"))]
    text = "\n".join([f"version: {version}", *lines, f"steps: {steps}"]).replace(
        "[statistics, glm,", "[flower_app, statistics, glm,"
    )
    (folder / "site.yaml").write_text(text.replace("[flower_app, flower_app", "[flower_app") + "\n", "utf-8")
    prepare.fivefold("site", "sign-policy", "--site", folder)


@pytest.fixture(scope="module")
def flower(consortium: Path) -> Iterator[Deployment]:
    with deployed(consortium, consortium / "coordinator") as it:
        yield it


def run(consortium: Path, over: Engine, name: str) -> dict[str, Result]:
    done = session.run(signed(consortium), over, consortium / name, tell=lambda _: None, engine_name="local", resume=False)
    return {n: r for n, r in done.results.items() if isinstance(r, Result)}


def opening(engine: FlowerEngine, consortium: Path) -> tuple[str, str, str]:
    """What the site's real node says when it is asked to open a run: kind, code, rule."""
    it = signed(consortium)
    request = m.request(m.Place(it.digest, "asked", 1, 1), m.Open(it.to_bytes()))
    said = m.Envelope.decode(m.envelopes_of(dict(engine.exchange({SITE: request}))[SITE])[0])
    if said.kind != m.Refusal.kind:
        return said.kind, "", ""
    refusal = m.Refusal.decode(said.body)
    return said.kind, refusal.code, refusal.rule


def test_an_app_runs_where_it_is_approved_named_and_unchanged(
    consortium: Path, flower: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = consortium / "sites" / SITE
    data = next(site.glob("*.csv"))
    away = data.rename(data.with_suffix(".away"))  # whoever reads rows first fails by that
    (site / "state" / "snapshots").rename(site / "state" / "kept")
    client = site / "apps" / "logistic" / "client.py"

    with flower.engine() as engine:
        assert opening(engine, consortium) == ("refusal", "PolicyRefuses", "steps")
        policy(site, 4, ["flower_app.logistic/1"])
        assert opening(engine, consortium)[:2] == ("refusal", "NotApproved")  # a new policy voids the approval
        prepare.fivefold("site", "approve", consortium / "study.signed.json", "--site", site, "--yes")
        client.write_text(APP + "# one byte more\n", "utf-8")
        assert opening(engine, consortium) == ("refusal", "NotApproved", "app_changed")
        client.rename(site / "client.py")
        assert opening(engine, consortium) == ("refusal", "NotApproved", "app_changed")
        shutil.move(site / "apps" / "logistic", site / "apps" / "elsewhere")
        assert opening(engine, consortium) == ("refusal", "NotApproved", "app_not_installed")
        shutil.move(site / "apps" / "elsewhere", site / "apps" / "logistic")
        client.write_text(APP, "utf-8")
        assert opening(engine, consortium)[:2] == ("refusal", "SourceNotFound")  # the control: now it would read rows
    refused = [e.facts["rule"] for e in entries(site / "state" / "audit.jsonl") if e.event == "refused"]
    assert {"steps", "app_changed", "app_not_installed"} <= set(refused)

    away.rename(data)
    (site / "state" / "kept").rename(site / "state" / "snapshots")
    with flower.engine() as engine:
        over = run(consortium, engine, "over")
    monkeypatch.setenv(APPS, str(consortium / "apps"))
    here = run(consortium, local_engine(consortium / "sites", SITES), "here")
    assert comparable(consortium / "over") == comparable(consortium / "here")
    # it is the descent that our own training does, so it must end where ours ends
    np.testing.assert_allclose(over["theirs"].tables["weights"].column("value"), over["ours"].tables["weights"].column("value"))
    assert here["theirs"].method == "flower_app"
    for name in SITES:
        own = consortium / "sites" / name / "state" / "audit.jsonl"
        verify(own)
        asked = [e.facts for e in entries(own) if e.event == "ask" and e.facts.get("analysis") == "theirs"]
        assert any("flower_app.logistic/1" in step for e in asked for step in e["steps"])


def test_what_an_app_may_answer(tmp_path: Path) -> None:
    """Arrays of the shapes that it was given, finite; anything else is a failure of the app, and nothing leaves."""
    from fivefold.engines.flower.foreign_app import admitted, trained

    write_app(tmp_path / "logistic", APP)
    files = files_of(tmp_path / "logistic")
    arrays = [np.zeros((2, 1)), np.zeros(1)]
    x, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.0, 1.0])
    config = {"round": 1, "learning_rate": 0.1, "local_epochs": 1, "batch_size": 0, "seed": 1}
    slopes, level = trained(files, arrays, x, y, config)
    assert (slopes.shape, level.shape) == ((2, 1), (1,))
    for wrong in ("ArrayRecord([slopes])", "ArrayRecord([slopes * np.nan, level])", "1 / 0"):
        broken = APP.replace("ArrayRecord([slopes, level])", wrong).encode()
        with pytest.raises(RunError, match="did not answer"):
            trained({**files, "client.py": broken}, arrays, x, y, config)
    with pytest.raises(NotApproved):
        admitted("logistic", "0" * 64)


def test_the_digest_of_an_app_is_shown(tmp_path: Path) -> None:
    digest = write_app(tmp_path / "logistic", APP)
    said = fivefold("site", "app", tmp_path / "logistic")
    assert digest in said.stdout
    (tmp_path / "logistic" / "client.py").write_text(APP.replace("0", "1", 1), "utf-8")
    assert digest not in fivefold("site", "app", tmp_path / "logistic").stdout
    assert fivefold("site", "app", tmp_path).returncode == 21
