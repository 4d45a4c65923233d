"""A trained model out of a run: its weights as safetensors, its arithmetic as ONNX, with a model card beside them.

Of a sealed run only what output checkers let go: the weights are those of the released table, or, of a model too wide for a
table, those of a replay whose digest is the released one. A rehearsal lies open, and its card says that it is one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fivefold.algorithms.design import Design
from fivefold.algorithms.training_result import digest
from fivefold.algorithms.training_spec import TrainingSpec, class_names
from fivefold.coordinator import sealing
from fivefold.coordinator.life import study_of
from fivefold.coordinator.model_card import Released, card_of, markdown
from fivefold.coordinator.release_crate import journal_of, plan_in
from fivefold.errors import ModelNotExported, OutputHeld, StatementInvalid
from fivefold.governance.output_forms import OTHER_DIGITS, Form, significant
from fivefold.governance.safe_outputs import RELEASE
from fivefold.governance.statements import read_chain
from fivefold.models import lora, onnx_graph, safetensors
from fivefold.models.model import ModelSpec, Weights, named
from fivefold.plugins import method
from fivefold.protocol.results import Result
from fivefold.records.files import write_file
from fivefold.records.sealed_journal import aggregates_of
from fivefold.replay.cursor import setting_of
from fivefold.results.reproduce import replayed
from fivefold.results.write import read_json, results_of
from fivefold.study.definition import Analysis
from fivefold.study.digest import SignedStudy

Format = Literal["onnx", "safetensors"]
FILES: dict[Format, str] = {"onnx": "model.onnx", "safetensors": "model.safetensors"}
CARD, PAGE = "model_card.json", "MODEL_CARD.md"


@dataclass(frozen=True)
class Trained:
    """A training of a run: its analysis and spec, its released result, its weights in order of `spec.shapes`."""

    analysis: Analysis
    spec: TrainingSpec
    result: Result
    weights: Weights
    model: ModelSpec
    """What is written: the spec's model, or, of adapters, their base with them merged into it."""

    @property
    def digest(self) -> str:
        return digest(_vector(self.weights))


def export(
    run: Path, formats: Sequence[Format], out: Path | None = None, *, analysis: str = "", base: Path | None = None
) -> Path:
    """Write the model of an analysis (by name, or the run's only training) into a folder, with its card; the folder.
    `base`: the file of the base that adapters were trained on; both are written as one network then.

    Raises `ModelNotExported` for what has no model in this format, `OutputHeld` where nothing was released (or the journal of a
    wide model cannot be opened), `StatementInvalid` for a release whose files are not those that its signed note names.
    """
    found = study_of(run)
    value, released = _result(run, found, analysis)
    it = _trained(run, found, results_of(value), analysis, released)
    out = out or run.absolute().with_name(f"{run.absolute().name}-{re.sub(r'[^A-Za-z0-9_-]+', '-', it.analysis.name)}")
    whole = it if base is None else _merged(it, base)
    made = {FILES[f]: _file(f, found, whole, released) for f in formats}
    held = _held(out, whole.digest)
    files = {n: hashlib.sha256(b).hexdigest() for n, b in sorted((held | made).items())}
    card = card_of(found, it.analysis, it.spec, it.result, released, files, whole.digest)
    for name, data in made.items():
        write_file(out / name, data)
    write_file(out / CARD, json.dumps(card, indent=1, ensure_ascii=False).encode() + b"\n")
    write_file(out / PAGE, markdown(card).encode())
    return out


def trained_file(run: Path, found: SignedStudy, name: str, result: Result, journal: bytes | None) -> bytes:
    """The weights of a training as they are, before anything was released: for the sites, which attack them. `journal`: the key
    of a sealed run's journal, from which a wide model comes. Raises `ModelNotExported` for what no site can attack."""
    it = _trained(run, found, {name: result}, name, Released((run / "run.id").read_text("ascii").strip()), journal)
    if it.spec.personal:
        raise ModelNotExported(f"{', '.join(it.spec.personal)} stays at each site, so that there is no whole model to attack")
    return safetensors.dump(it.weights, _about(found, it, "not released"))


# ---- what was released ----------------------------------------------------------------------------------------------
def _result(run: Path, found: SignedStudy, analysis: str) -> tuple[Mapping[str, Any], Released]:
    """The result.json to take the model from: of the newest release that holds the analysis, else of a run that lies open."""
    identity = (run / "run.id").read_text("ascii").strip()
    places = [p for p in sorted((run / "released").glob("[0-9]*")) if (p / "release.json").is_file()]
    for place in reversed(places):
        value = read_json(place)
        if not analysis or analysis in {a["name"] for a in value["analyses"]}:
            form = _verified(run, place)
            note = json.loads((place / "release.json").read_bytes())
            by = tuple(dict.fromkeys(str(c["name"]) for c in note["checkers"]))
            return value, Released(identity, int(note["request"]), by, form)
    if sealing.is_sealed(run):
        what = f"the analysis {analysis!r}" if analysis else "nothing"
        raise OutputHeld(
            f"{what} of this sealed run was {'not ' if analysis else ''}released, and a model leaves as any output does",
            help="Ask for it: `fivefold outputs request RUN`.",
        )
    value = read_json(run)
    if value["study"]["digest"] != found.digest:
        raise StatementInvalid("result.json is of another study than study.signed.json")
    return value, Released(identity)


def _verified(run: Path, place: Path) -> Form:
    """The released result.json is the one that the coordinator's signed note names; the form in which it was released."""
    number = int(place.name)
    notes = [s for s in read_chain(run / "airlock") if s.kind == RELEASE and int(s.facts["request"]) == number]
    own = hashlib.sha256((place / "result.json").read_bytes()).hexdigest()
    form: Form | None = next((n.facts["form"] for n in notes if n.facts["files"].get("result.json") == own), None)
    if form is None:
        raise StatementInvalid(f"release {number} is not the one that its signed note names", help="Take it from a copy.")
    return form


# ---- the weights ----------------------------------------------------------------------------------------------------
def _trained(
    run: Path,
    found: SignedStudy,
    results: Mapping[str, Result],
    name: str,
    released: Released,
    journal: bytes | None = None,
) -> Trained:
    analyses = plan_in(run, found).analyses or found.study.analyses
    known = {a.name: a for a in analyses if a.name in results and "weights_sha256" in results[a.name].facts}
    if name and name not in {a.name for a in analyses}:
        raise ModelNotExported(f"the run has no analysis {name!r}", help=f"Write one of: {', '.join(known) or 'none'}.")
    if name and name not in known:
        raise ModelNotExported(f"the analysis {name!r} trains no model, or came to no result")
    if not name and len(known) != 1:
        words = "no model was trained here" if not known else f"there are {len(known)} models here"
        raise ModelNotExported(words, help=f"Name one with --analysis: {', '.join(known)}." if known else None)
    analysis = known[name] if name else next(iter(known.values()))
    spec = method(analysis.method).parse(analysis, setting_of(found.study))
    if not isinstance(spec, TrainingSpec):
        raise ModelNotExported(f"the model of {analysis.name!r} is another platform's own", help="Take it from there.")
    result = results[analysis.name]
    vector = _listed(spec, result)
    as_it_is = released.form == "as_is"
    if vector is None:
        vector = _replayed(run, found, analysis.name, journal)
        _same(vector, result)
        if not as_it_is:  # what no table can show is cut to the digits of what tables show
            vector = np.array([significant(float(v), OTHER_DIGITS) for v in vector], dtype=np.float64)
    elif as_it_is:
        _same(vector, result)
    return Trained(analysis, spec, result, named(vector, spec.shapes), spec.model)


def _replayed(run: Path, found: SignedStudy, name: str, journal: bytes | None) -> Any:
    """The weights of a training that is replayed from the journal, shape (size,)."""
    aggregates = journal_of(run) if journal is None else aggregates_of(run, journal)
    cursor, _, fault = replayed(found.study, aggregates, plan_in(run, found).analyses)
    vector = getattr(cursor.results.get(name), "weights", None)
    if vector is None:
        raise ModelNotExported(f"the run cannot be replayed: {fault or 'it ended without a model'}")
    return vector


def _same(vector: Any, result: Result) -> None:
    if digest(vector) != result.facts["weights_sha256"]:
        raise ModelNotExported(
            "the weights are not those whose digest stands in the result", help="Take the run folder from a copy."
        )


def _listed(spec: TrainingSpec, result: Result) -> Any:
    """The weights of the table, shape (size,), or None where it lists none."""
    table = result.tables["weights"]
    if not table.rows:
        return None
    values = table.column("value")
    if len(values) != spec.width or not all(isinstance(v, (int, float)) for v in values):
        raise ModelNotExported("some weights were withheld from the release", help="Ask for a release in another form.")
    return np.array(values, dtype=np.float64)


def _merged(it: Trained, file: Path) -> Trained:
    if "lora" not in it.spec.model.more:
        raise ModelNotExported(f"{it.analysis.name!r} was trained without a base", help="Leave --base out.")
    try:
        own = lora.keep(file.read_bytes())
    except safetensors.Malformed as error:
        raise ModelNotExported(f"the base in {file} cannot be read: {error}") from error
    if own != it.spec.model.more["lora"]["base"]:
        raise ModelNotExported(f"{file} is not the base that the study names by its digest")
    model, weights = lora.merged(it.spec.model, it.weights)
    return replace(it, model=model, weights=weights)


def _vector(weights: Weights) -> Any:
    return np.concatenate([np.asarray(w, dtype=np.float64).reshape(-1) for w in weights.values()])


# ---- the files ------------------------------------------------------------------------------------------------------
def _file(kind: Format, found: SignedStudy, it: Trained, released: Released) -> bytes:
    spec = it.spec
    status = "released" if released.number else "rehearsal, not released"
    about = {"run": released.run, "licence": found.study.outputs.licence, **_about(found, it, status)}
    if kind == "safetensors":
        return safetensors.dump(it.weights, about)
    if "lora" in it.model.more:
        raise ModelNotExported("adapters alone predict nothing", help="Name the file of their base with --base.")
    if spec.model.kind not in onnx_graph.NETWORKS:
        raise ModelNotExported(
            "a model of the user's own code has no ONNX graph, since only its code knows what it computes",
            help="Write `--format safetensors`, and hand on the code with it.",
        )
    if spec.personal:
        raise ModelNotExported(
            f"{', '.join(spec.personal)} stays at each site, so that the shared weights are no whole model",
            help="Write `--format safetensors`.",
        )
    columns = columns_of(spec, {str(v): (c, s) for v, c, s in it.result.tables["scaling"].rows})
    try:
        return onnx_graph.onnx_of(it.model, it.weights, columns, about | {"variables": "\n".join(columns.variables)})
    except ImportError:
        raise ModelNotExported("ONNX files need the library onnx", help="pip install 'fivefold[onnx]'") from None


def _about(found: SignedStudy, it: Trained, status: str) -> dict[str, str]:
    """The texts beside the weights; with `scaling`, rows of the dictionary's variables can be predicted."""
    return {
        "study": found.digest, "analysis": it.analysis.name, "kind": it.model.kind, "task": it.spec.task,
        "weights_sha256": it.digest, "status": status, "outcome": it.spec.response, "classes": "\n".join(class_names(it.spec)),
        "scaling": json.dumps([list(row) for row in it.result.tables["scaling"].rows]),
    }  # fmt: skip


def columns_of(spec: TrainingSpec, scaled: Mapping[str, tuple[Any, ...]]) -> onnx_graph.Columns:
    """The design of a training as the graph writes it. `scaled`: centre and scale by variable, as in the table `scaling`."""
    design: Design = spec.design
    columns = [c for c in design.columns if c.variables]
    variables = tuple(dict.fromkeys(v for c in columns for v in c.variables))
    place = {v: i for i, v in enumerate(variables)}
    levels = tuple(dict.fromkeys(pair for c in columns for pair in c.levels))
    numbers = tuple(n for n in design.numbers if n in place)
    at: dict[Any, int] = {atom: i for i, atom in enumerate((*numbers, *levels))}
    return onnx_graph.Columns(
        variables,
        tuple((place[n], float(scaled[n][0]), float(scaled[n][1])) for n in numbers),
        tuple((place[v], level) for v, level in levels),
        tuple(tuple(at[atom] for atom in (*c.numbers, *c.levels)) for c in columns),
        (float(scaled[spec.response][0]), float(scaled[spec.response][1])) if spec.task == "regression" else (0.0, 1.0),
    )


def _held(out: Path, own: str) -> dict[str, bytes]:
    """The files of the same model that lie there already. Raises `ModelNotExported` where the folder holds anything else."""
    there = {p.name for p in out.iterdir()} if out.is_dir() else set()
    if not there:
        return {}
    try:
        same = json.loads((out / CARD).read_bytes())["provenance"]["weights_sha256"] == own
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same or not there <= {*FILES.values(), CARD, PAGE}:
        raise ModelNotExported(f"{out} holds something else already", help="Name another folder with --out.")
    return {name: (out / name).read_bytes() for name in sorted(there & set(FILES.values()))}
