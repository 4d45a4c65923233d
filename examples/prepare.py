"""Set up a whole consortium on this machine: python -m examples.prepare NAME OUT [STUDY]   (NAME: lung, breast, digits)

STUDY is another study file of the example than its study.yaml: `breast OUT training.yaml` trains models on the same sites.

Each line that begins with `$` is what one of the parties would type at its own desk, in this order: the lead makes a key, each
site its folder with keys; the lead freezes and signs the study; each custodian signs the policy, approves the study and freezes
the site's rows.

    OUT/study.yaml  dictionary.yaml  study.frozen.json  study.signed.json   the study
    OUT/lead.key                                                           the lead's private key, made here
    OUT/first-checker.key  second-checker.key                              those of the output checkers
    OUT/sites/NAME/                                                        a site's folder, with its own rows and keys
    OUT/about.txt                                                          what the data are, and who was left out
"""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = ("lung", "breast", "digits")
CHECKERS = ("first", "second")


def main(arguments: list[str]) -> int:
    study = arguments[2] if len(arguments) == 3 else "study.yaml"
    if len(arguments) not in (2, 3) or arguments[0] not in NAMES or not (HERE / arguments[0] / study).is_file():
        print(__doc__)
        return 2
    name, out = arguments[0], Path(arguments[1])
    if (out / "study.signed.json").exists():
        print(f"{out} is prepared already; remove it to prepare it anew.")
        return 0
    if out.exists() and any(out.iterdir()):
        print(f"{out} holds something else already; choose another folder.", file=sys.stderr)
        return 2
    prepare(name, out, study)
    print(f"\nReady: fivefold run {out / 'study.yaml'}")
    return 0


def prepare(name: str, out: Path, study: str = "study.yaml") -> None:
    """Everything up to the run. Raises `SystemExit` where a command fails, with what it said."""
    data = import_module(f"examples.{name}.data")
    frame, about = data.pooled()
    print(f"{name}: {about}\n")
    out.mkdir(parents=True, exist_ok=True)
    (out / "about.txt").write_text(f"{about}\n", encoding="utf-8")
    sites = {str(site): rows for site, rows in frame.groupby("site", sort=True)}

    fivefold("keys", "new", out / "lead.key")
    keys = {"the lead's key": public_key(out / "lead.key")}
    for number in CHECKERS:
        fivefold("keys", "new", out / f"{number}-checker.key")
        keys[f"the {number} checker's key"] = public_key(out / f"{number}-checker.key")
    for site, rows in sites.items():
        folder = out / "sites" / site
        fivefold("site", "init", folder, "--name", site, "--custodian", f"Custodian of {site}")
        given = HERE / name / "sites" / site
        shutil.copy(given / "mapping.yaml", folder)
        write_rows(folder, data.as_held(site, rows))
        node = public_key(folder / "keys" / "node.key")
        keys |= {f"the key of {site}": node, f"the fingerprint of {site}": fingerprint(node)}

    shutil.copy(HERE / name / "dictionary.yaml", out)
    fill(HERE / name / study, out / "study.yaml", keys)
    fivefold("study", "freeze", out / "study.yaml")
    fivefold("study", "sign", out / "study.yaml", "--key", out / "lead.key")

    signed = out / "study.signed.json"
    for site in sites:
        folder = out / "sites" / site
        own = {"the custodian's key": public_key(folder / "keys" / "custodian.key")}
        fill(HERE / name / "sites" / site / "site.yaml", folder / "site.yaml", keys | own)
        fivefold("site", "sign-policy", "--site", folder)
        fivefold("site", "approve", signed, "--site", folder, "--yes")
        fivefold("site", "prepare", signed, "--site", folder)


def fivefold(*words: Any) -> None:
    """Run a command of the command line, in this process; its output is shown only where it fails."""
    from fivefold.cli.main import run

    command = [str(w) for w in words]
    print(f"$ fivefold {shlex.join(command)}", flush=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = run(command)
    if code:
        print(said.getvalue())
        raise SystemExit(code)


def write_rows(folder: Path, rows: Any) -> None:
    """The site's rows in the file, with the delimiter, decimal sign and missing code that its mapping.yaml names."""
    from fivefold.data.mapping import CsvSource
    from fivefold.data.mapping import Mapping as DataMapping

    mapping = DataMapping.read(folder / "mapping.yaml")
    source = mapping.source
    assert isinstance(source, CsvSource)
    unknown = mapping.missing[0] if mapping.missing else ""
    rows.to_csv(folder / source.path, sep=source.delimiter, decimal=source.decimal, na_rep=unknown, index=False)


def fill(template: Path, target: Path, values: Mapping[str, str]) -> None:
    """Write a file with its `<notes>` replaced by keys and fingerprints."""
    text = template.read_text(encoding="utf-8")
    for note, value in values.items():
        text = text.replace(f"<{note}>", value)
    target.write_text(text, encoding="utf-8")


def public_key(file: Path) -> str:
    from fivefold.auth import keys

    return keys.public_of(keys.read_key(file)).hex()


def fingerprint(public: str) -> str:
    from fivefold.auth import keys

    return keys.fingerprint(bytes.fromhex(public))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
