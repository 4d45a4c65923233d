"""The report of the automatic checks, in the vocabulary and shape that output checkers know from ACRO (`results.json`):
outputs with a status of pass, review or fail, a summary, properties, the cells concerned, comments, and the reason of an
exception.

ACRO: Green, Ritchie and Smith, "Automatic checking of research outputs (ACRO)", 2021; the defaults of `Rules` are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["pass", "review", "fail"]
ORDER: dict[Status, int] = {"pass": 0, "review": 1, "fail": 2}


@dataclass(frozen=True)
class Rules:
    """What the checks ask. `threshold`: persons in a cell; `dof`: degrees of freedom left; `nk_n`, `nk_k`, `p`: dominance;
    `parameters`: parameters of a model for each row, at most; `sites`: sites that contribute."""

    threshold: int = 10
    dof: int = 10
    nk_n: int = 2
    nk_k: float = 0.90
    p: float = 0.10
    parameters: float = 0.33
    sites: int = 3


@dataclass(frozen=True)
class Finding:
    """What one rule says of one output. `cells`: places in the table named, row and column or index by axis. A `binding`
    failure is nobody's to except: it is about others than those who decide."""

    rule: str
    status: Status
    words: str
    table: str = ""
    cells: tuple[tuple[int, ...], ...] = ()
    binding: bool = False


@dataclass(frozen=True)
class OutputReport:
    """All findings about one output."""

    uid: str
    type: str
    command: str
    properties: dict[str, Any]
    files: tuple[str, ...]
    findings: tuple[Finding, ...]
    comments: tuple[str, ...] = ()
    exception: str = ""

    @property
    def status(self) -> Status:
        return max((f.status for f in self.findings), key=ORDER.__getitem__, default="review")

    @property
    def binding(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.binding and f.status == "fail")

    @property
    def summary(self) -> str:
        """The status, then every rule that is not simply passed."""
        said = [f.words for f in self.findings if f.status == self.status or f.status == "fail"]
        return "; ".join([self.status, *dict.fromkeys(said)])


@dataclass(frozen=True)
class Report:
    """The report of a request. `status` is the worst of its outputs."""

    outputs: tuple[OutputReport, ...]
    together: tuple[Finding, ...] = field(default=())

    @property
    def status(self) -> Status:
        found = [*(o.status for o in self.outputs), *(f.status for f in self.together)]
        return max(found, key=ORDER.__getitem__, default="review")

    @property
    def binding(self) -> tuple[Finding, ...]:
        return (*(f for o in self.outputs for f in o.binding), *(f for f in self.together if f.binding and f.status == "fail"))


def acro(report: Report, version: str, timestamp: str, comments: Sequence[str] = (), exception: str = "") -> dict[str, Any]:
    """JSON values as ACRO writes them: `version`, and `results` by uid. What all outputs share stands under `together`."""
    return {
        "version": version,
        "results": {o.uid: _output(o, timestamp, comments, exception) for o in report.outputs},
        "together": [_finding(f) for f in report.together],
        "status": report.status,
    }


def _output(output: OutputReport, timestamp: str, comments: Sequence[str], exception: str) -> dict[str, Any]:
    cells: dict[str, dict[str, list[list[int]]]] = {}
    for found in output.findings:
        if found.cells:
            cells.setdefault(found.table, {}).setdefault(found.rule, []).extend(list(c) for c in found.cells)
    files = [
        {
            "name": name,
            "sdc": {
                "summary": {"suppressed": output.properties.get("form") == "suppressed"}
                | {rule: len(places) for table, rules in cells.items() if _of(name, table) for rule, places in rules.items()},
                "cells": {rule: places for table, rules in cells.items() if _of(name, table) for rule, places in rules.items()},
            },
        }
        for name in output.files
    ]
    return {
        "uid": output.uid,
        "status": output.status,
        "type": output.type,
        "properties": output.properties,
        "files": files,
        "outcome": [_finding(f) for f in output.findings],
        "command": output.command,
        "summary": output.summary,
        "timestamp": timestamp,
        "comments": [*output.comments, *comments],
        "exception": exception or output.exception,
        "fair": {},  # ACRO's words about the variables; its reader wants the key
    }


def _of(file: str, table: str) -> bool:
    return file.removesuffix(".csv").endswith(f".{table.partition('.')[0]}")


def _finding(found: Finding) -> dict[str, Any]:
    return {"rule": found.rule, "status": found.status, "words": found.words, "table": found.table, "binding": found.binding}
