"""Five sites and three studies: the lung study's Cox model, a logistic model and a governed Flower app in torch on the breast
rows, and FedAdam on them with differential privacy. The sites are the lung study's; each has a hospital's breast rows too."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from examples import prepare
from examples.breast import data
from fivefold.engines.flower.foreign_app import digest_of, files_of

INSTITUTIONS = ("inst-01-02", "inst-03-07", "inst-10-12", "inst-13-16", "inst-21-33")
HOSPITALS = ("alder", "birch", "cedar", "elm", "fir")
APP = "tumour"
PYPROJECT = """\
[project]
name = "NAME"
version = "1.0.0"

[tool.flwr.app]
publisher = "somebody"

[tool.flwr.app.components]
clientapp = "client:app"
"""
CLIENT = """\
import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    config, rows = message.content["config"], np.load(context.node_config["rows"])
    torch.set_num_threads(1)
    torch.manual_seed(config["seed"])
    slopes, level = (torch.from_numpy(a.copy()) for a in message.content["arrays"].to_numpy_ndarrays())
    x, y = torch.from_numpy(rows["x"]), torch.from_numpy(rows["y"]).reshape(-1, 1)
    network = torch.nn.Linear(x.shape[1], 1, dtype=x.dtype)
    network.load_state_dict({"weight": slopes.T, "bias": level})
    for _ in range(config["local_epochs"]):
        for batch in torch.randperm(len(x)).split(16):
            network.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(x[batch]), y[batch])
            loss.backward()
            with torch.no_grad():  # torch.optim takes longer to load than all of this
                for weight in network.parameters():
                    weight -= config["learning_rate"] * weight.grad
    after = [network.weight.detach().T.numpy(), network.bias.detach().numpy()]
    told = MetricRecord({"loss": float(loss.detach())})
    return Message(RecordDict({"arrays": ArrayRecord(after), "metrics": told}), reply_to=message)
"""
THEIRS = """\
  - name: theirs
    method: flower_app
    formula: malignant ~ radius + texture
    options:
      app: tumour
      digest: DIGEST
      model: {kind: logistic}
      rounds: 1
      local_epochs: 3
      learning_rate: 0.3
      clip: 5.0
      bins: 5

"""


def lung_with_cox(out: Path) -> None:
    """The lung study with one analysis, at sites that permit what all three studies ask."""
    prepare.prepare("lung", out)
    study = out / "study.yaml"
    text = study.read_text("utf-8")
    first, cox, by_site = (text.index(f"  - name: {n}\n") for n in ("description", "cox", "cox-by-site"))
    study.write_text(text[:first] + text[cox:by_site].rstrip() + "\n\n" + text[text.index("envelope:") :], "utf-8")
    for site in INSTITUTIONS:
        policy = out / "sites" / site / "site.yaml"
        mine = f"methods: [statistics, kaplan_meier, cox, glm, fedopt, flower_app]\nsteps: [flower_app.{APP}/1]"
        text = policy.read_text("utf-8").replace("methods: [statistics, kaplan_meier, cox]", mine)
        policy.write_text(text.replace("version: 2", "version: 3"), "utf-8")
        prepare.fivefold("site", "sign-policy", "--site", policy.parent)
    sign(study)
    approve(out, study)


def breast(out: Path) -> tuple[Path, Path]:
    """The two studies of breast masses, in folders of their own, at the same sites. Rows are frozen; the files are gone."""
    frame, _ = data.pooled()
    lung = {site: (out / "sites" / site / "mapping.yaml").read_bytes() for site in INSTITUTIONS}
    keys = {"the lead's key": prepare.public_key(out / "lead.key")}
    for site, hospital in zip(INSTITUTIONS, HOSPITALS, strict=True):
        folder = out / "sites" / site
        write_app(folder / "apps" / APP, CLIENT)
        shutil.copy(prepare.HERE / "breast" / "sites" / hospital / "mapping.yaml", folder)
        prepare.write_rows(folder, data.as_held(hospital, frame[frame.site == hospital]))
        keys[f"the key of {hospital}"] = prepare.public_key(folder / "keys" / "node.key")
    plain, private = written(out / "plain", "study.yaml", keys), written(out / "private", "private.yaml", keys)
    text = plain.read_text("utf-8")
    first, glm, after = text.index("  - name: description"), text.index("  - name: malignancy"), text.index("envelope:")
    theirs = THEIRS.replace("DIGEST", write_app(out / "apps" / APP, CLIENT))
    plain.write_text(text[:first] + text[glm:after].rstrip() + "\n\n" + theirs + text[text.index("privacy:") :], "utf-8")
    text = private.read_text("utf-8").replace("rounds: 12", "rounds: 2").replace("evaluate_every: 12", "evaluate_every: 2")
    private.write_text(text[: text.index("  - name: description")] + text[text.index("  - name: adam") :], "utf-8")
    for study in (plain, private):
        sign(study, out / "lead.key")
        approve(out, study)
    for site in INSTITUTIONS:
        folder = out / "sites" / site
        for file in folder.glob("*.csv"):
            if file.name != "patients.csv":
                file.unlink()
        (folder / "mapping.yaml").write_bytes(lung[site])
    return plain, private


def written(folder: Path, name: str, keys: Mapping[str, str]) -> Path:
    folder.mkdir()
    shutil.copy(prepare.HERE / "breast" / "dictionary.yaml", folder)
    prepare.fill(prepare.HERE / "breast" / name, folder / "study.yaml", keys)
    text = (folder / "study.yaml").read_text("utf-8")
    for site, hospital in zip(INSTITUTIONS, HOSPITALS, strict=True):
        text = text.replace(f"name: {hospital},", f"name: {site},")
    (folder / "study.yaml").write_text(text, "utf-8")
    return folder / "study.yaml"


def write_app(folder: Path, client: str) -> str:
    """Write somebody's Flower app of this client into a folder of its name; its digest."""
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT.replace("NAME", folder.name), "utf-8")
    (folder / "client.py").write_text(client, "utf-8")
    return digest_of(files_of(folder))


def sign(study: Path, lead: Path | None = None) -> None:
    for name in ("study.frozen.json", "study.signed.json"):
        study.with_name(name).unlink(missing_ok=True)
    prepare.fivefold("study", "freeze", study)
    prepare.fivefold("study", "sign", study, "--key", lead or study.with_name("lead.key"))


def approve(out: Path, study: Path) -> None:
    signed = study.with_name("study.signed.json")
    for site in INSTITUTIONS:
        prepare.fivefold("site", "approve", signed, "--site", out / "sites" / site, "--yes")
        prepare.fivefold("site", "prepare", signed, "--site", out / "sites" / site)
