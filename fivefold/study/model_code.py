"""What a study's models bring along: a user's own code, read from its file with the study, so that signature and approval cover
every line; and the base of a model with adapters, whose file stays beside the study and is named by its digest.

    options:
      model: {kind: code, file: network.py, shapes: {...}}

In the study, `source` and `digest` (SHA-256, hex) stand in the place of `file`; a base's digest stands in its name's place:

      model: {kind: torch_mlp, lora: {base: base.safetensors}}
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fivefold.study.consistency import Fault
from fivefold.study.definition import Analysis

MOST_BYTES = 256 * 1024


def code_of(analysis: Analysis) -> tuple[str, str] | None:
    """Digest and source of an analysis's own code, or None."""
    model = analysis.options.get("model")
    if not isinstance(model, Mapping) or model.get("kind") != "code":
        return None
    source = str(model.get("source", ""))
    return hashlib.sha256(source.encode()).hexdigest(), source


def codes(analyses: Iterable[Analysis]) -> dict[str, str]:
    """Digest → source, of all code in these analyses."""
    return dict(found for found in map(code_of, analyses) if found is not None)


def bases(analyses: Iterable[Analysis]) -> tuple[str, ...]:
    """The digests of the base models that these analyses put adapters on, each once."""
    models = [a.options.get("model") for a in analyses]
    found = [m["lora"] for m in models if isinstance(m, Mapping) and isinstance(m.get("lora"), Mapping)]
    return tuple(dict.fromkeys(str(one.get("base", "")) for one in found))


def with_sources(data: Any, folder: Path) -> tuple[Any, list[Fault]]:
    """A study file's data with the text of each `file` in its place, and what is wrong with these files."""
    found: list[Fault] = []
    data = copy.deepcopy(data)
    analyses = data.get("analyses")
    for i, analysis in enumerate(analyses if isinstance(analyses, list) else []):
        options = analysis.get("options") if isinstance(analysis, dict) else None
        model = options.get("model") if isinstance(options, dict) else None
        if isinstance(model, dict) and model.get("kind") == "code" and "file" in model:
            source, wrong = _read(folder, model.pop("file"))
            if wrong:
                found.append(Fault(("analyses", i, "options", "model"), wrong, "Write its path as seen from the study file."))
            elif "source" in model:
                found.append(Fault(("analyses", i, "options", "model"), "both 'file' and 'source' are given", "Take one out."))
            model.setdefault("source", source)
            model.setdefault("digest", hashlib.sha256(source.encode()).hexdigest())
        adapters = model.get("lora") if isinstance(model, dict) else None
        if isinstance(adapters, dict) and str(adapters.get("base", "")).endswith(".safetensors"):
            digest, wrong = _digest(folder, adapters["base"])
            if wrong:
                found.append(Fault(("analyses", i, "options", "model"), wrong, "Write its path as seen from the study file."))
            adapters["base"] = digest
    return data, found


def _digest(folder: Path, name: Any) -> tuple[str, str]:
    """The SHA-256 of a file beside the study, and what is wrong with it."""
    try:
        with (folder / str(name)).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), ""
    except OSError:
        return "", f"the base model {str(name)!r} cannot be read"


def _read(folder: Path, name: Any) -> tuple[str, str]:
    """The text of a file beside the study, and what is wrong with it."""
    place = folder / str(name)
    try:
        if place.stat().st_size > MOST_BYTES:
            return "", f"the code in {name} is longer than {MOST_BYTES // 1024} KiB"
        return place.read_text(encoding="utf-8"), ""
    except (OSError, ValueError):
        return "", f"the model's code {str(name)!r} cannot be read as a text file"
