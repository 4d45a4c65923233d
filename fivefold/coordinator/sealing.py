"""A sealed run: its journal and results lie encrypted for the coordinator's process and the output checkers alone.

What everybody else may see before a release stands in `status.json`: rounds, the sites that answered, whether each analysis
came to a result, and what of the privacy budget it may have cost. The coordinator's key does not lie in the run's folder, so
that the folder can be handed over as it is.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fivefold.auth.keys import new_key, public_of, read_key, write_key
from fivefold.errors import OutputHeld
from fivefold.privacy.sealed_box import open_box, seal
from fivefold.protocol.encoding import encode
from fivefold.records.files import write_file
from fivefold.study.definition import Study

SEALED = Path("sealed") / "results.box"
JOURNAL = Path("sealed") / "journal.box"
PURPOSE, JOURNAL_PURPOSE = "results of a run", "journal of a run"
KEY_PLACE = "FIVEFOLD_COORDINATOR_KEY"


def key_place(run: str) -> Path:
    """Where the coordinator's key of a sealed run is: where the environment says, else in this user's own state."""
    from platformdirs import user_state_path

    named = os.environ.get(KEY_PLACE)
    return Path(named) if named else user_state_path("fivefold") / "runs" / f"{run}.key"


def begin(folder: Path, run: str, study: Study) -> None:
    """Make the coordinator's key and the journal's, sealed. Raises `OutputHeld` where the study names no output checkers."""
    if not study.outputs.checkers:
        raise OutputHeld(
            "the study names no output checkers, so nobody could open a sealed run",
            help="Name them under `outputs: checkers`, and sign the study again; or rehearse without --sealed.",
        )
    place = key_place(run)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not place.exists():
        write_key(place, new_key())
    public = public_of(read_key(place))
    named = [bytes.fromhex(c.public_key) for c in study.outputs.checkers]
    write_file(folder / JOURNAL, seal(secrets.token_bytes(32), [public, *named], JOURNAL_PURPOSE))


def is_sealed(folder: Path) -> bool:
    return (folder / JOURNAL).exists()


def journal_key(folder: Path, private: bytes) -> bytes:
    """The key of a sealed run's journal, for the coordinator or a checker. Raises `KeyProblem`."""
    return open_box((folder / JOURNAL).read_bytes(), private, public_of(private), JOURNAL_PURPOSE)


def put(folder: Path, result: bytes, keys: Sequence[bytes], journal: bytes) -> None:
    """Seal result.json for the holders of these public keys, with a secret that hides what digests of it would tell, and the
    journal's key: sites' own checkers were not known when the journal was begun."""
    held = encode({"result": result, "secret": secrets.token_bytes(32), "journal": journal})
    write_file(folder / SEALED, seal(held, keys, PURPOSE))


def tell(folder: Path, run: str, rounds: Sequence[Mapping[str, Any]], done: Mapping[str, bool], spent: str) -> None:
    """Write `status.json`: all that may be seen before a release."""
    answered = list(rounds[-1]["answered"]) if rounds else []
    value = {"run": run, "rounds": len(rounds), "sites": answered, "converged": dict(done), "privacy_spent": spent}
    write_file(folder / "status.json", json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")
