"""Somebody's Flower ClientApp, run once at a site: its bytes are known by their digest, its process has two pipes and no more.

The app lies in the site's own folder `apps/NAME/`, where the site put it; a run brings none. It runs in a process of its own,
which inherits that the answering process has no network, and none of its pipes, keys or open files. What it may send back is
arrays of the shapes that it was given; everything else of its reply is dropped.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fivefold.engines.flower.frames import read_frame, write_frame
from fivefold.errors import NotApproved, RunError
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.questions import Array

APPS = "FIVEFOLD_APPS"
"""The environment variable that names the folder of the site's apps."""
SECONDS = 3600.0
IGNORED = ("__pycache__", ".git")


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of an app by their path in it. A link is not followed."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not set(path.relative_to(folder).parts) & set(IGNORED)
    }


def digest_of(files: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) over the files' names and bytes."""
    parts = [(name, hashlib.sha256(files[name]).digest()) for name in sorted(files)]
    return hashlib.sha256(encode(tuple(parts))).hexdigest()


def admitted(name: str, digest: str) -> dict[str, bytes]:
    """The files of an app that is installed at this site and has this digest. Raises `NotApproved`."""
    place = os.environ.get(APPS, "")
    folder = Path(place) / name
    files = files_of(folder) if place and folder.is_dir() else {}
    if not files:
        raise NotApproved(
            f"the app {name} is not installed at this site",
            rule="app_not_installed",
            help="Put its files into the site's folder `apps/NAME/`; `fivefold site app FOLDER` shows their digest.",
        )
    if digest_of(files) != digest:
        raise NotApproved(
            f"the app {name} is not the one that the study names",
            rule="app_changed",
            help="Compare `fivefold site app FOLDER` with the study; other bytes need another study, and its approval.",
        )
    return files


def trained(files: Mapping[str, bytes], arrays: Sequence[Array], x: Array, y: Array, config: Mapping[str, Any]) -> list[Array]:
    """What the app's `train` makes of these arrays. Raises `RunError` where it fails or answers with other shapes."""
    command = [sys.executable, "-m", "fivefold.engines.flower.foreign_app"]
    asked = encode({"files": dict(files), "arrays": tuple(arrays), "x": x, "y": y, "config": dict(config)})
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            write_frame(process.stdin, asked)
            said = read_frame(process.stdout)
        except OSError:
            said = None
        finally:
            process.kill()
    found = decode(said).get("arrays", ()) if said is not None else ()
    after = [np.asarray(a, dtype=np.float64) for a in found if isinstance(a, np.ndarray)]
    if [a.shape for a in after] != [a.shape for a in arrays] or not all(np.isfinite(a).all() for a in after):
        raise RunError("the app did not answer with finite arrays of the shapes that it was given", rule="app_failed")
    return after


# ---- the app's own process ------------------------------------------------------------------------------------------
def main() -> None:
    """Take the pipes, so that whatever the app prints goes nowhere; write its files down, load it, call it once."""
    import tempfile

    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    asked = decode(read_frame(source) or b"")
    with tempfile.TemporaryDirectory(prefix="fivefold-app-") as name:
        folder = Path(name) / "app"
        for path, data in asked["files"].items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        rows = Path(name) / "rows.npz"
        np.savez(rows, x=asked["x"], y=asked["y"])
        write_frame(sink, encode({"arrays": tuple(_called(folder, rows, asked["arrays"], asked["config"]))}))


def _called(folder: Path, rows: Path, arrays: Sequence[Array], config: Mapping[str, Any]) -> list[Array]:
    """One call of `train`, in Flower's own terms: the weights as `arrays`, the rows' file in the node's config."""
    import tomllib
    from importlib import import_module

    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

    from fivefold.engines.flower.dialect import dialect

    about = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["tool"]["flwr"]["app"]
    sys.path.insert(0, str(folder))
    module, _, attribute = about["components"]["clientapp"].partition(":")
    app = getattr(import_module(module), attribute)
    dialect().alone()
    content = RecordDict({"arrays": ArrayRecord([np.array(a) for a in arrays]), "config": ConfigRecord(dict(config))})
    message = Message(content, dst_node_id=1, message_type="train")
    message.metadata.__dict__["_message_id"] = "1"
    node: dict[str, Any] = {"rows": str(rows), "partition-id": 0, "num-partitions": 1}
    context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config=about.get("config", {}))
    reply = app(message, context)
    return list(next(iter(reply.content.array_records.values())).to_numpy_ndarrays())


if __name__ == "__main__":
    main()
