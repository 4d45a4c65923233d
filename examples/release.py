"""Play the airlock of the newest run: python -m examples.release OUT

The lead asks for the outputs; two output checkers look, each with a key of their own, and let them go with counts rounded; the
released files are written, and packed with the run's history as a signed research package. Each line that begins with `$` is
what one of them would type.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__)
        return 2
    from examples.compare import newest

    out = Path(arguments[0])
    run = newest(out)
    if run is None:
        print(f"{out} holds no run that has ended; run the study first.", file=sys.stderr)
        return 2
    fivefold("request", run, "--key", out / "lead.key", "--purpose", "to show how outputs are released")
    fivefold("list", run)
    from fivefold.coordinator import airlock

    number = airlock.queue(airlock.airlock(run))[-1].request.number
    form = ("--form", "rounded")
    fivefold("check", run, number, *form, "--key", out / "first-checker.key")
    for checker in ("first", "second"):
        fivefold("decide", run, number, "release", *form, "--key", out / f"{checker}-checker.key")
    fivefold("release", run, number, "--key", out / "first-checker.key")
    package = run.with_name(f"{run.name}-crate")
    if not package.exists():
        fivefold("build", run, "--sites", out / "sites", noun="crate")
        fivefold("validate", package, noun="crate")
    return 0


def fivefold(*words: Any, noun: str = "outputs") -> None:
    """Run a command, in this process. Raises `SystemExit` where it fails."""
    from fivefold.cli.main import run

    command = [noun, *map(str, words)]
    print(f"\n$ fivefold {shlex.join(command)}", flush=True)
    code = run(command)
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
