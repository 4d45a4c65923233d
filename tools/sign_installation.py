"""Signs the files of Fivefold before a release is built: `python -m tools.sign_installation KEY`. Sites name the public half
under `settings.signed_by` in site.yaml. The list is for the built package; it is not kept in the repository."""

from __future__ import annotations

import sys
from pathlib import Path

from fivefold.auth.keys import public_of
from fivefold.cli.keys import open_key
from fivefold.governance.installation import FILE, ROOT, sign_files


def main(key: Path, root: Path = ROOT) -> None:
    """Write the signed list into the package at `root`."""
    private = open_key(key)
    (root / FILE).write_bytes(sign_files(private, root))
    print(f"wrote {root / FILE}, signed by {public_of(private).hex()}; build the package, and take the file away again")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
