"""How soon a command answers: `import fivefold` and `fivefold --help` against a bare interpreter.

python -m benchmarks.startup
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.measure import in_turns, report

TURNS = 15
TARGETS = {"import_seconds_beyond_bare": "< 0.3", "help_seconds": "< 0.5"}


def main() -> None:
    command = str(Path(sys.executable).with_name("fivefold"))
    commands = {
        "bare": [sys.executable, "-c", "pass"],
        "import": [sys.executable, "-c", "import fivefold"],
        "numpy": [sys.executable, "-c", "import numpy"],
        "help": [command, "--help"],
    }
    for words in commands.values():  # once before it counts: compiled files are written, the disk is read
        _run(words)
    best = in_turns({name: partial(_run, words) for name, words in commands.items()}, TURNS)
    beyond = best["import"] - best["bare"]
    print(f"Best of {TURNS} processes each, in turns: a bare interpreter takes {best['bare']:.3f} s,")
    print(f"`import numpy` {best['numpy']:.3f} s,", end=" ")
    print(f"`import fivefold` {best['import']:.3f} s ({beyond:.3f} s beyond bare), `fivefold --help` {best['help']:.3f} s.")
    report(
        "startup",
        {
            "import_seconds_beyond_bare": beyond,
            "help_seconds": best["help"],
            "bare_seconds": best["bare"],
            "ratio_to_bare_interpreter": best["import"] / best["bare"],
            "help_ratio_to_import_numpy": best["help"] / best["numpy"],
        },
        TARGETS,
    )


def _run(words: list[str]) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
