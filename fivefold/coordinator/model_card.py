"""The card of a trained model: what it predicts, from which data, by which method, under which protection, how well, and what
it is not good for. After Mitchell et al. (Model cards for model reporting, FAT* 2019). All numbers are the released ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import fivefold
from fivefold.algorithms.training_spec import TrainingSpec, class_names
from fivefold.governance.output_forms import OTHER_DIGITS, Form
from fivefold.plugins import method
from fivefold.protocol.encoding import digest
from fivefold.protocol.results import Result
from fivefold.records.counts import MISSING, PRIVACY
from fivefold.study.definition import Analysis, Privacy
from fivefold.study.dictionary import Variable
from fivefold.study.digest import SignedStudy

FORMAT = "fivefold-model-card/1"
MEASURES = ("loss", "accuracy", "auc", "auc_low", "auc_high", "root_mean_squared_error")


@dataclass(frozen=True)
class Released:
    """Where the numbers come from: the run, and the release's number with its output checkers (0: a rehearsal)."""

    run: str
    number: int = 0
    checkers: tuple[str, ...] = ()
    form: Form = "as_is"


def card_of(
    found: SignedStudy,
    analysis: Analysis,
    spec: TrainingSpec,
    result: Result,
    released: Released,
    files: Mapping[str, str],
    weights: str,
) -> dict[str, Any]:
    """The card as JSON values. `files`: the model's files, each with its SHA-256; `weights`: the digest of what is in them."""
    study, facts, about = found.study, result.facts, method(analysis.method)
    dictionary = spec.setting.dictionary
    counts = {n: facts[n] for n in ("persons", "events", "rows") if facts.get(n) is not None}
    return {
        "format": FORMAT,
        "model": {
            "title": f"{study.title}: {analysis.name}",
            "kind": spec.model.kind,
            "task": spec.task,
            "predicts": {**_variable(dictionary[spec.response]), "classes": list(class_names(spec))},
            "inputs": [_variable(dictionary[v]) for v in spec.variables if v != spec.response],
            "formula": analysis.formula,
            "weights": {name: list(shape) for name, shape in spec.shapes.items()},
            "adapters_on": spec.model.more["lora"]["base"] if "lora" in spec.model.more else "",
            "stays_at_the_sites": list(spec.personal),
            "files": dict(files),
        },
        "data": {
            "question": study.question,
            "dictionary": {"name": study.dictionary.name, "version": study.dictionary.version,
                           "sha256": digest(asdict(study.dictionary)).hex()},
            "person": study.person,
            "cohort": {"include": list(study.cohort.include), "exclude": list(study.cohort.exclude)},
            "subgroup": analysis.subgroup,
            "sites": [s.organisation or s.name for s in study.sites if s.name in result.sites],
            "dropped": list(result.dropped),
            "counts": counts,
            "missing": {n.removeprefix(MISSING): v for n, v in facts.items() if n.startswith(MISSING) and v is not None},
        },
        "method": {
            "name": analysis.method,
            "title": about.title,
            "source": about.paper,
            "options": _options(analysis.options),
            "rounds": facts.get("training_rounds"),
            "seed": study.seed,
        },
        "privacy": _privacy(study.privacy, str(facts.get(PRIVACY) or "")),
        "evaluation": _evaluation(spec, result),
        "limits": _limits(spec, result, released),
        "provenance": {
            "study_sha256": found.digest,
            "run": released.run,
            "release": released.number,
            "output_checkers": list(released.checkers),
            "status": "released" if released.number else "rehearsal: no output checker has let it go",
            "weights_sha256": weights,
            "trained_weights_sha256": facts["weights_sha256"],
            "software": f"fivefold {fivefold.__version__}",
            "lead": " · ".join(w for w in (study.lead.name, study.lead.organisation, study.lead.orcid) if w),
            "ethics": study.agreements.ethics,
            "purpose": study.agreements.purpose,
        },
        "licence": study.outputs.licence,
    }  # fmt: skip


def _variable(v: Variable) -> dict[str, Any]:
    told = {"name": v.name, "label": v.label, "type": v.type, "unit": v.unit, "minimum": v.minimum, "maximum": v.maximum}
    return {k: w for k, w in told.items() if w not in ("", None)} | ({"codes": dict(v.codes)} if v.codes else {})


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    """As the study has them; of code, its digest stands for it."""
    model = options.get("model")
    if not isinstance(model, Mapping):
        return dict(options)
    return {**options, "model": {k: v for k, v in model.items() if k != "source"}}


def _privacy(it: Privacy, promise: str) -> dict[str, Any]:
    masks = (
        f"Each round was a secure sum over the sites ({it.adversary} adversary, {it.minimum_sites} sites and "
        f"{it.minimum_persons} persons at least): nobody saw one site's update."
    )
    private = it.differential_privacy
    if private is None:
        told = (
            "The sums are exact, without differential privacy: what the weights themselves tell of a person in the training "
            "data is not bounded."
        )
        return {"secure_sum": masks, "differential_privacy": None, "words": [masks, told]}
    return {
        "secure_sum": masks,
        "differential_privacy": {
            "promise": promise, "unit": private.unit, "delta": private.delta, "cap_epsilon": private.epsilon,
            "noise_multiplier": private.noise_multiplier,
        },
        "words": [masks, f"All answers of the run together: {promise}."],
    }  # fmt: skip


def _evaluation(spec: TrainingSpec, result: Result) -> dict[str, Any]:
    """The measures of these weights, as the released facts have them."""
    measures = {n: result.facts[n] for n in MEASURES if result.facts.get(n) is not None}
    where = f"{spec.holdout:.0%} of each site's persons, kept out of the training" if spec.holdout else "the training rows"
    return {"on": where if measures else "", "measures": measures, "over": "all sites together; no site's own figure is known"}


def _limits(spec: TrainingSpec, result: Result, released: Released) -> list[str]:
    out = [
        "It was trained and judged on persons of these sites; elsewhere it may be worse, and has to be validated first.",
        "It is no medical device, and no decision on a person may rest on it alone.",
        f"Numbers are in the dictionary's units and ranges; outside of them nothing is known of it. Rows that miss one of "
        f"{', '.join(spec.variables)} were left out.",
    ]
    if not any(n in result.facts for n in MEASURES):
        out.append("It was not evaluated.")
    if spec.personal:
        out.append(f"Without {', '.join(spec.personal)}, which stays at each site, it predicts nothing.")
    if released.form != "as_is":
        out.append(f"Weights and figures were released with {OTHER_DIGITS} digits; the evaluation is of the unrounded weights.")
    if not released.number:
        out.append("It comes from a rehearsal: no output checker has looked at it.")
    return [*out, *result.notes]


# ---- for people -----------------------------------------------------------------------------------------------------
def markdown(card: Mapping[str, Any]) -> str:
    """The card as a page."""
    model, data, way, proof = (card[k] for k in ("model", "data", "method", "provenance"))
    aim = model["predicts"]
    who = ", ".join(proof["output_checkers"])
    counts = " · ".join(f"{name} {n}" for name, n in data["counts"].items())
    lines = [
        f"# {model['title']}", "",
        f"A `{model['kind']}` that predicts **{aim['label']}** (`{aim['name']}`): {data['question']}", "",
        f"Status: {proof['status']} · licence: {card['licence']}", "",
        "## Data", "",
        f"- Sites: {', '.join(data['sites'])}" + (f"; dropped: {', '.join(data['dropped'])}" if data["dropped"] else ""),
        *([f"- {counts}"] if counts else []),
        f"- Dictionary: {data['dictionary']['name']}, version {data['dictionary']['version']}",
        *_selection(data), "",
        "| input | what it is | type | unit | range or codes |", "| --- | --- | --- | --- | --- |",
        *(_row(v) for v in model["inputs"]), "",
        "## Method", "",
        f"{way['title']} (`{way['name']}`), {way['rounds']} rounds. {way['source']}.", "",
        "```yaml", f"formula: {model['formula']}", *(f"{name}: {value}" for name, value in way["options"].items()), "```", "",
        "## Privacy", "", *(f"- {w}" for w in card["privacy"]["words"]), "",
        "## Evaluation", "", *_judged(card["evaluation"]), "",
        "## Limits", "", *(f"- {w}" for w in card["limits"]), "",
        "## Where it comes from", "",
        f"- study sha256 `{proof['study_sha256']}`",
        f"- run `{proof['run']}`" + (f", release {proof['release']}, let go by {who}" if who else ""),
        f"- weights sha256 `{proof['weights_sha256']}`",
        *([f"- adapters (LoRA) on the public base with sha256 `{model['adapters_on']}`"] if model["adapters_on"] else []),
        *(f"- `{name}` sha256 `{own}`" for name, own in model["files"].items()),
        f"- {proof['software']} · lead: {proof['lead']} · ethics: {proof['ethics']}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _selection(data: Mapping[str, Any]) -> list[str]:
    out = [f"- {word} {', '.join(f'`{e}`' for e in data['cohort'][word])}" for word in data["cohort"] if data["cohort"][word]]
    out += [f"- subgroup `{data['subgroup']}`"] if data["subgroup"] else []
    missing = ", ".join(f"{name} {n}" for name, n in data["missing"].items() if n)
    return out + ([f"- missing: {missing}"] if missing else [])


def _row(v: Mapping[str, Any]) -> str:
    span = ", ".join(f"{c} {w}" for c, w in v.get("codes", {}).items())
    span = span or (f"{v['minimum']:g} to {v['maximum']:g}" if "minimum" in v and "maximum" in v else "")
    cells = (f"`{v['name']}`", v.get("label", ""), v["type"], v.get("unit", ""), span)
    return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"


def _judged(evaluation: Mapping[str, Any]) -> list[str]:
    if not evaluation["measures"]:
        return ["It was not evaluated."]
    return [
        f"On {evaluation['on']}; {evaluation['over']}.", "", "| measure | value |", "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in evaluation["measures"].items()),
    ]  # fmt: skip
