"""All benchmarks, one after another, and the table of docs/benchmarks.md: `python -m benchmarks`.

Ends with exit code 1 if a figure misses its target.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import NAMES
from benchmarks.measure import met

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- table: begin (written by `make bench`) -->", "<!-- table: end -->"


def main() -> int:
    results = [run(name) for name in NAMES]
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), table(results)), encoding="utf-8")
    missed = [f"{r['name']}.{k}" for r in results for k, target in r["targets"].items() if not met(r.get(k), target)]
    print(f"\nThe table of {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE} is rewritten.")
    if missed:
        print(f"Below target: {', '.join(missed)}.")
    return 1 if missed else 0


def run(name: str) -> dict[str, Any]:
    """One benchmark in a process of its own; its text is shown as it comes. Returns its last line, read."""
    print(f"\n== {name} ==\n", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line if line.strip() else last
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    result: dict[str, Any] = json.loads(last)
    return result


def table(results: list[dict[str, Any]]) -> str:
    """The figures as a Markdown table, those with a target first in each benchmark, under a line that names the machine."""
    when = datetime.now(UTC).date().isoformat()
    lines = [
        f"Measured on {when}: {_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "",
        "| benchmark | figure | value | target | met |",
        "| --- | --- | ---: | --- | --- |",
    ]
    for result in results:
        targets = result["targets"]
        names = [*targets, *(k for k in result if k not in targets and k not in ("name", "targets"))]
        for key in names:
            wanted = f"{targets[key]} | {'yes' if met(result.get(key), targets[key]) else 'no'}" if key in targets else " | "
            lines.append(f"| {result['name']} | `{key}` | {_shown(result.get(key))} | {wanted} |")
    return "\n".join(lines)


def rewritten(page: str, content: str) -> str:
    """The page with what stands between the markers replaced."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise SystemExit(f"docs/benchmarks.md has to hold the lines {BEGIN!r} and {END!r}, once each and in this order")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{after}"


def _shown(value: Any) -> str:
    if isinstance(value, (int, float)):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return "not measured" if value is None else str(value)


def _processor() -> str:
    """The processor's name as Linux tells it, or the machine's kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
