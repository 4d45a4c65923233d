"""A consortium on this machine from any table of numbers: dictionary, study and site folders are written out, then set up by
the same commands as in `examples.prepare`. For comparisons over many seeds, where nothing has to be harmonised.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.prepare import fingerprint, fivefold, public_key
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable
from fivefold.study.digest import SignedStudy, load_signed

if TYPE_CHECKING:
    import pandas as pd

UNTIL = "2035-12-31"


def prepared(
    out: Path, name: str, frame: pd.DataFrame, variables: Sequence[Variable], analyses: Sequence[Analysis], *, seed: int = 0,
    privacy: Mapping[str, Any] | None = None, policy: Mapping[str, Any] | None = None, checkers: Sequence[str] = (),
) -> SignedStudy:  # fmt: skip
    """Set up `out` from a frame with a column `site`; every row is a person. `privacy` and `policy` add to the study's section
    of that name and to every site's site.yaml; `checkers` name output checkers, whose keys are made as NAME.key. Raises
    `SystemExit` where a command fails."""
    sites = sorted(frame.site.unique())
    with contextlib.redirect_stdout(io.StringIO()):
        keys = _folders(out, frame, sites)
        _write(out / "dictionary.yaml", _dictionary(name, variables))
        study = _study(name, variables, analyses, sites, keys, seed, privacy or {})
        if checkers:
            study["outputs"] |= {"checkers": [_checker(out, one) for one in checkers], "checks": len(checkers)}
        _write(out / "study.yaml", study)
        fivefold("study", "freeze", out / "study.yaml")
        fivefold("study", "sign", out / "study.yaml", "--key", out / "lead.key")
        signed = out / "study.signed.json"
        for site in sites:
            folder = out / "sites" / site
            _write(folder / "mapping.yaml", _mapping(variables))
            _write(folder / "site.yaml", _policy(site, sites, analyses, keys, folder, policy or {}))
            fivefold("site", "sign-policy", "--site", folder)
            fivefold("site", "approve", signed, "--site", folder, "--yes")
            fivefold("site", "prepare", signed, "--site", folder)
    return load_signed(signed)


def _folders(out: Path, frame: pd.DataFrame, sites: Sequence[str]) -> dict[str, str]:
    """Keys, and each site's rows as rows.csv. Returns public node keys by site, and the lead's under ``."""
    out.mkdir(parents=True)
    fivefold("keys", "new", out / "lead.key")
    keys = {"": public_key(out / "lead.key")}
    for site in sites:
        folder = out / "sites" / site
        fivefold("site", "init", folder, "--name", site, "--custodian", f"Custodian of {site}")
        keys[site] = public_key(folder / "keys" / "node.key")
        rows = frame[frame.site == site].drop(columns="site").reset_index(drop=True)
        rows.assign(patient=[f"P{i:06d}" for i in range(len(rows))]).to_csv(folder / "rows.csv", index=False)
    return keys


def _checker(out: Path, name: str) -> dict[str, str]:
    fivefold("keys", "new", out / f"{name}.key")
    return {"name": name, "organisation": "Airlock", "public_key": public_key(out / f"{name}.key")}


def _write(path: Path, value: Any) -> None:
    """JSON is YAML."""
    import json

    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _dictionary(name: str, variables: Sequence[Variable]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for v in variables:
        out[v.name] = {"label": v.label, "type": v.type}
        if v.codes:
            out[v.name]["codes"] = dict(v.codes)
        if v.minimum is not None:
            out[v.name] |= {"minimum": v.minimum, "maximum": v.maximum}
    return {"name": name, "version": "1", "variables": out}


def _mapping(variables: Sequence[Variable]) -> dict[str, Any]:
    def one(v: Variable) -> Any:
        if v.type == "category":
            return {"column": v.name, "codes": {f"{int(c)}.0": c for c in v.codes}}
        return {"column": v.name, "codes": {"0.0": "0", "1.0": "1"}} if v.type == "boolean" else v.name

    return {
        "source": {"kind": "csv", "path": "rows.csv"},
        "person": "patient",
        "variables": {v.name: one(v) for v in variables},
    }


def _study(
    name: str, variables: Sequence[Variable], analyses: Sequence[Analysis], sites: Sequence[str], keys: Mapping[str, str],
    seed: int, privacy: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    return {
        "title": f"Models of {name}", "question": "How well does a model predict for persons it has not seen?",
        "lead": {"name": "Lead", "organisation": "Institute", "public_key": keys[""]},
        "sites": [{"name": s, "organisation": s, "public_key": keys[s]} for s in sites],
        "dictionary": "dictionary.yaml", "person": "patient", "variables": {v.name: "used by the models" for v in variables},
        "seed": seed,
        "analyses": [{"name": a.name, "method": a.method, "formula": a.formula, "options": dict(a.options)} for a in analyses],
        "privacy": {"minimum_sites": 3, "minimum_persons": 5, "max_rows_per_site": 10_000, **privacy},
        "outputs": {"planned": ["Accuracy on persons held out"]},
        "agreements": {"ethics": "none needed", "purpose": "to compare methods", "expires": UNTIL},
    }  # fmt: skip


def _policy(
    site: str,
    sites: Sequence[str],
    analyses: Sequence[Analysis],
    keys: Mapping[str, str],
    folder: Path,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    custodian = {"name": f"Custodian of {site}", "key": public_key(folder / "keys" / "custodian.key")}
    return {
        "version": 2, "site": site, "asset": f"{site}-rows", "expires": UNTIL,
        "custodians": [{**custodian, "from": "2026-01-01", "until": UNTIL}],
        "leads": [keys[""]], "peers": [{"site": s, "fingerprint": fingerprint(keys[s])} for s in sites if s != site],
        "methods": sorted({a.method for a in analyses}), "minimum_persons": 5, "minimum_sites": 3, "site_totals": "permitted",
        "max_rounds": 10_000, "numbers_per_person": 1e7, **more,
    }  # fmt: skip
