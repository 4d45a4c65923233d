"""Runs in `.venv-sacro`: the tools of SACRO on what `test_sacro.py` left in a folder, and what they say of it as `said.json`.

python in_sacro.py FOLDER
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import acro.record
import numpy as np
import torch
from sacroml.attacks.structural_attack import StructuralAttack, get_model_param_count
from sacroml.attacks.target import Target
from sacroml.attacks.worst_case_attack import WorstCaseAttack
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

folder = Path(sys.argv[1])
os.chdir(folder)  # every attack makes folders where it is
logging.disable(logging.CRITICAL)
np.random.seed(0)  # the attacker's forests draw from it
given = dict(np.load("given.npz"))
x, n = given["x"], len(given["x"]) // 2


def network(name: str) -> torch.nn.Module:
    layers: list[torch.nn.Module] = []
    for i in (1, 2):
        weight, bias = given[f"{name}.layer{i}"].T, given[f"{name}.bias{i}"]
        layers += [torch.nn.Linear(weight.shape[1], weight.shape[0]), torch.nn.ReLU()]
        layers[-2].load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return torch.nn.Sequential(*layers[:-1])


def attacked(model: Any, y: Any) -> dict[str, Any]:
    """`areas` under the ROC curve by repetition, the structural findings, and the smallest group of equal predictions."""
    target = Target(model=model, X_train=x[:n], y_train=y[:n], X_test=x[n:], y_test=y[n:])
    worst = WorstCaseAttack(write_report=False, n_reps=6, n_dummy_reps=0)
    worst.attack(target)
    form = StructuralAttack(write_report=False, report_individual=True).attack(target)
    found = form["attack_experiment_logger"]["attack_instance_logger"]["instance_0"]
    return {
        "areas": [rep["AUC"] for rep in worst.attack_metrics],
        "smallest": min(found["individual"]["k_anonymity"]),
        "predicted": np.concatenate([target.model.predict_proba(x[:n]), target.model.predict_proba(x[n:])]).tolist(),
        **{name: bool(value) for name, value in found.items() if name.endswith("risk")},
    }


y, certain = given["y"], given["certain"]
models = {
    "heart": (network("heart"), y),
    "plain": (network("plain"), y),
    "forest": (RandomForestClassifier(100, random_state=1).fit(x[:n], y[:n]), y),
    "coarse": (DecisionTreeClassifier(max_depth=3, min_samples_leaf=30, random_state=1).fit(x[:n], y[:n]), y),
    "certain": (DecisionTreeClassifier(max_depth=3, min_samples_leaf=30, random_state=1).fit(x[:n], certain[:n]), certain),
}
said: dict[str, Any] = {name: attacked(*pair) for name, pair in models.items()}
for name in ("heart", "plain"):
    said[name]["parameters"] = get_model_param_count(models[name][0])

report = json.loads(Path("report.json").read_bytes())
Path("results.json").write_text(json.dumps(report | {"version": acro.record.__version__}))  # it reads its own alone
said["acro"] = {
    uid: {
        "status": r.status, "type": r.output_type, "summary": r.summary, "comments": r.comments, "exception": r.exception,
        "rules": r.outcome["rule"].tolist(), "sdc": r.sdc, "tables": [list(t.columns) for t in r.output],
    }
    for uid, r in acro.record.load_records(".").results.items()
}  # fmt: skip
Path("said.json").write_text(json.dumps(said))
