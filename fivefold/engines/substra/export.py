"""A signed study as a folder from which substrafl draws its compute plan; no substrafl is needed to write it."""

from __future__ import annotations

import json
from pathlib import Path

from fivefold.engines.substra.steps import carried, rounds_of
from fivefold.errors import RunFolderTaken
from fivefold.records.files import write_file
from fivefold.study.digest import SignedStudy

OPENER = '''"""Hands the data sample's folder to the task; no row is read here."""

import substratools as tools


class SiteFolder(tools.Opener):
    def get_data(self, folders):
        return folders[0]

    def fake_data(self, n_samples=None):
        raise NotImplementedError("rehearse with `fivefold site rehearse`: it reads real rows and sends nothing")
'''

README = """# {title}

`study.signed.json` is the signed study, `opener.py` what an organisation registers as its opener, `plan.json` the rounds to
draw (an upper bound: once the study has no more questions, tasks hand on what they got).

On one machine, each task in a process of its own:

    python -m fivefold.engines.substra.plan {folder} --sites SITES --out RUN

There is no secure sum under Substra: the organisation that adds up sees each site's answers. A site answers only where its
policy and its approval permit that (`site_totals`).
"""


def write_plan(found: SignedStudy, folder: Path, *, rounds: int | None = None) -> int:
    """Write the folder, which must be empty or new. Returns the number of rounds. Raises `EngineUnfit`, `RunFolderTaken`."""
    carried(found.study)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderTaken(f"{folder} already holds files", help="Name a folder that does not exist yet.")
    folder.mkdir(parents=True, exist_ok=True)
    most = rounds or rounds_of(found.study)
    write_file(folder / "study.signed.json", found.to_bytes())
    write_file(folder / "opener.py", OPENER.encode())
    write_file(folder / "README.md", README.format(title=found.study.title, folder=folder.name).encode())
    write_file(folder / "plan.json", (json.dumps({"study": found.digest, "rounds": most}, indent=2) + "\n").encode())
    return most
