"""The audit log among threads and processes, killed, and on a full disk."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fivefold.auth import keys
from fivefold.errors import StorageFull
from fivefold.records import audit
from fivefold.records.audit import AuditLog, verify

KEY = bytes(range(32))
PUBLIC = keys.public_of(KEY)


def test_threads_share_a_log(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "audit.jsonl", KEY, "North") as log:
        threads = [threading.Thread(target=lambda n=n: [log.write("t", n=n) for _ in range(10)]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert verify(tmp_path / "audit.jsonl").events["t"] == 40


def child(text: str, *arguments: str, **more: object) -> subprocess.Popen[str]:
    lines = "import sys\nfrom pathlib import Path\nfrom fivefold.records.audit import AuditLog\nKEY = bytes(range(32))\n" + text
    return subprocess.Popen([sys.executable, "-c", lines, *arguments], stdout=subprocess.PIPE, text=True, **more)


def test_processes_share_a_log(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    text = "log = AuditLog(sys.argv[1], KEY, 'North')\nfor n in range(15):\n    log.write('p', who=sys.argv[2], n=n)\n"
    children = [child(text, str(path), str(who)) for who in range(4)]
    for one in children:
        one.communicate(timeout=60)
        assert one.returncode == 0
    assert verify(path, PUBLIC).events == {"opened": 1, "p": 60}
    for who in "0123":
        assert [e.facts["n"] for e in audit.entries(path) if e.facts.get("who") == who] == list(range(15))


def test_kill_9_leaves_every_entry_that_was_promised(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    text = "log = AuditLog(sys.argv[1], KEY, 'North')\nwhile True:\n    print(log.write('act').seq, flush=True)\n"
    promised = 1
    for lines in (1, 3, 7, 20, 2, 11):
        with child(text, str(path)) as process:
            assert process.stdout is not None
            for _ in range(lines):
                promised = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            promised = max(
                [promised, *(int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n"))]
            )
        AuditLog(path, KEY, "North").close()
        report = verify(path, PUBLIC)
        assert report.entries >= promised
        promised = report.entries


FULL_DISK = """
import resource, json
from fivefold.errors import StorageFull
from fivefold.records.audit import verify
path, limit = Path(sys.argv[1]), int(sys.argv[2])
log = AuditLog(path, KEY, 'North')
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
acts, refused = 0, None
try:
    while True:
        log.write('act', number=acts, text='x' * 50)
        acts += 1
except StorageFull as error:
    refused = error
report = verify(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.write('after')
print(json.dumps([acts, refused.exit_code, refused.message, report.entries, report.beyond_head, verify(path).entries]))
"""


@pytest.mark.parametrize("limit", [600, 1024, 2000, 3001])
def test_a_full_disk_stops_the_act_and_leaves_the_log_whole(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "audit.jsonl"
    process = child(FULL_DISK, str(path), str(limit))
    out, _ = process.communicate(timeout=60)
    acts, code, message, entries, beyond, later = json.loads(out)
    assert code == StorageFull.exit_code
    assert "disk is full" in message
    assert entries == acts + 1
    assert beyond == 0
    assert later == entries + 1
    assert not list(tmp_path.glob("*.new"))


def test_a_disk_that_is_full_from_the_start_gives_no_log(tmp_path: Path) -> None:
    text = """
import resource
from fivefold.errors import StorageFull
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
try:
    AuditLog(sys.argv[1], KEY, 'North')
except StorageFull:
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    AuditLog(sys.argv[1], KEY, 'North').write('question')
    print('refused, then begun')
"""
    out, _ = child(text, str(tmp_path / "audit.jsonl")).communicate(timeout=60)
    assert out.strip() == "refused, then begun"
    assert verify(tmp_path / "audit.jsonl").entries == 2
