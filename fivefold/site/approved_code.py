"""The text of what was approved: each file of a method, kept by its digest, so that a later release can show what it changes.

A copy counts only as long as its bytes give its digest, which stands in the custodian's signed approval.
"""

from __future__ import annotations

import difflib
import hashlib

from fivefold.governance import approvals
from fivefold.governance.method_code import files_of_study, text_of
from fivefold.governance.statements import read_chain, store
from fivefold.site.folder import SiteFolder
from fivefold.study.definition import Study


def keep(site: SiteFolder, study: Study) -> None:
    """Keep the text of the study's methods as they are now; what is there already is not written again."""
    for path, digest in files_of_study(study).items():
        place = site.state / "code" / f"{digest}.py"
        if not place.exists():
            store(place, text_of(path))


def difference(site: SiteFolder, study: Study, digest: str) -> tuple[str, ...]:
    """What changed in the study's methods since the last approval, line by line (unified diff); none where nothing did.

    A file of which no true copy is kept is named, and shown whole by its new digest alone.
    """
    given = [s for s in read_chain(approvals.chain_of(site.path, digest)) if s.kind == "approval"]
    if not given:
        return ()
    before, now = given[-1].facts.get("files", {}), files_of_study(study)
    lines: list[str] = []
    for path in sorted({*before, *now}):
        if before.get(path) == now.get(path):
            continue
        old, new = _kept(site, before.get(path, "")), text_of(path) if path in now else b""
        if old is None:
            lines.append(
                f"{path}: what was approved ({before[path][:16]}…) is not kept here; it is now {now.get(path, 'gone')[:16]}"
            )
            continue
        was, becomes = (text.decode("utf-8", "replace").splitlines() for text in (old, new))
        lines += difflib.unified_diff(was, becomes, f"approved/{path}", f"now/{path}", lineterm="", n=2)
    return tuple(lines)


def _kept(site: SiteFolder, digest: str) -> bytes | None:
    """The kept text of a digest; empty for a file that was not there, None where no true copy is."""
    if not digest:
        return b""
    try:
        data = (site.state / "code" / f"{digest}.py").read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == digest else None
