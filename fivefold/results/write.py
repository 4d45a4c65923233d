"""A run's results on disk: `result.json`, `tables/ANALYSIS.TABLE.csv`, `plots/ANALYSIS.N.svg` and `.png`.

The same results give the same bytes. What differs between two runs of one study (times, paths, run identity) stands under the
one key `run` of result.json, so that two runs are compared by everything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fivefold.errors import RunError
from fivefold.protocol.results import Result
from fivefold.records.files import write_file
from fivefold.results.tables import csv_of, plain_of, result_of

FORMAT = "fivefold-result/1"


def write_result(folder: str | Path, results: Mapping[str, Result], meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Write every result of a run; the relative paths written, result.json last. Each file appears whole or not at all.

    `results`: analysis name → result, in the study's order. `meta`: JSON values; its key `run` holds times and paths, the rest
    (study digest, seed, engine) is written beside the analyses. Raises `StorageFull`.
    """
    from fivefold.results.plots import draw

    folder = Path(folder)
    written: list[str] = []

    def put(path: str, data: bytes) -> None:
        write_file(folder / path, data)
        written.append(path)

    for analysis, stem in zip(results, file_names(results), strict=True):
        result = results[analysis]
        for name, table in zip(file_names(result.tables), result.tables.values(), strict=True):
            put(f"tables/{stem}.{name}.csv", csv_of(table))
        for number, figure in enumerate(result.figures, 1):
            for kind, image in draw(figure, result).items():
                put(f"plots/{stem}.{number}.{kind}", image)
    put("result.json", json_of(results, meta))
    return tuple(written)


def json_of(results: Mapping[str, Result], meta: Mapping[str, Any]) -> bytes:
    """The bytes of result.json: keys sorted, analyses and tables in their own order."""
    value = {
        "format": FORMAT,
        "study": {k: v for k, v in meta.items() if k != "run"},
        "run": dict(meta.get("run", {})),
        "analyses": [{"name": name} | plain_of(result) for name, result in results.items()],
    }
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_results(folder: str | Path) -> dict[str, Result]:
    """The results of a run folder: analysis name → result, in the study's order. Raises `RunError` if there are none."""
    return results_of(read_json(folder))


def results_of(value: Mapping[str, Any]) -> dict[str, Result]:
    """The results in a result.json that was read."""
    return {a["name"]: result_of(a) for a in value["analyses"]}


def read_json(folder: str | Path) -> dict[str, Any]:
    """The whole of a run folder's result.json. Raises `RunError` if it is missing or not one."""
    path = Path(folder) / "result.json"
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(
            f"{folder} holds no result.json: the run has not ended", help="Continue it with `fivefold run STUDY --resume DIR`."
        ) from error
    except ValueError as error:
        raise RunError(f"{path} is damaged", help="Run the study again, or take result.json from a copy.") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("analyses"), list):
        raise RunError(f"{path} is not a result of this version of Fivefold", help="Run the study again.")
    return value


def comparable(folder: str | Path) -> dict[str, Any]:
    """result.json without what differs between two runs of one study."""
    return {k: v for k, v in read_json(folder).items() if k != "run"}


def file_names(names: Mapping[str, Any]) -> tuple[str, ...]:
    """Names fit for files, one for each, all different: letters, digits, `_` and `-`."""
    taken: list[str] = []
    for name in names:
        stem = plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:80] or "result"
        number = 2
        while stem.lower() in (t.lower() for t in taken):
            stem, number = f"{plain}-{number}", number + 1
        taken.append(stem)
    return tuple(taken)
