"""A FLARE federation as an administrator sets one up: provisioned, a server and a client for each site, TLS on both sides.

    PYTHON flare_federation.py ADMIN JOB SITES

runs in FLARE's environment: it submits a job as the lead, waits, and prints its status and where its files came to.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEAD = "lead@example.org"
PROJECT = """\
api_version: 3
name: consortium
description: A consortium of the tests
participants:
  - {name: server, type: server, org: consortium, default_host: localhost, fed_learn_port: PORT}
  - {name: LEAD, type: admin, org: consortium, role: lead}
CLIENTS
builders:
  - {path: nvflare.lighter.impl.workspace.WorkspaceBuilder, args: {template_file: [master_template.yml]}}
  - {path: nvflare.lighter.impl.static_file.StaticFileBuilder, args: {config_folder: config}}
  - path: nvflare.lighter.impl.cert.CertBuilder
  - path: nvflare.lighter.impl.signature.SignatureBuilder
"""


def provisioned(out: Path, python: Path, sites: list[str]) -> Path:
    """FLARE's own provisioning; the folder with a startup kit for each party."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    clients = "\n".join(f"  - {{name: {name}, type: client, org: consortium}}" for name in sites)
    out.mkdir()
    text = PROJECT.replace("PORT", str(port)).replace("LEAD", LEAD).replace("CLIENTS", clients)
    (out / "project.yml").write_text(text, "utf-8")
    command = [str(python), "-m", "nvflare.cli", "provision", "-p", str(out / "project.yml"), "-w", str(out / "kits")]
    done = subprocess.run(command, cwd=out, env=os.environ | {"HOME": str(out)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "kits" / "consortium" / "prod_00"


def forbid_code(local: Path) -> None:
    """No role's jobs may bring code."""
    roles = json.loads((local / "authorization.json.default").read_text("utf-8"))
    for role, rights in roles["permissions"].items():
        roles["permissions"][role] = (rights if isinstance(rights, dict) else {}) | {"byoc": "none"}
    (local / "authorization.json").write_text(json.dumps(roles), "utf-8")


@contextmanager
def running(kits: Path, python: Path, sites: list[str], folders: Path) -> Iterator[None]:
    """The server and all clients; each client is told where its site's folder lies."""
    processes = [_start(kits / "server", python, ["server.server_train", "fed_server.json"], {})]
    try:
        for name in sites:
            place = {"FIVEFOLD_SITE_FOLDER": str(folders / name)}
            processes.append(_start(kits / name, python, ["client.client_train", "fed_client.json", f"uid={name}"], place))
        yield
    finally:
        for process in reversed(processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(kit: Path, python: Path, words: list[str], place: dict[str, str]) -> subprocess.Popen[bytes]:
    module, start, *more = words
    command = [str(python), "-m", f"nvflare.private.fed.app.{module}", "-m", str(kit), "-s", start, "--set", *more]
    with (kit / "said.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "secure_train=true", "org=consortium", "config_folder=config"],
            cwd=kit, env=os.environ | place, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def submitted(kits: Path, python: Path, job: Path, sites: int) -> tuple[str, Path]:
    """The job's status when it has ended, and the folder into which the lead downloaded it."""
    command = [str(python), __file__, str(kits / LEAD), str(job), str(sites)]
    done = subprocess.run(command, cwd=kits, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return told["status"], Path(told["folder"])


def main(admin: str, job: str, sites: str) -> None:
    import time

    from nvflare.fuel.flare_api.flare_api import new_secure_session

    end = time.monotonic() + 200
    while True:
        try:
            session = new_secure_session(LEAD, admin, timeout=20)
            break
        except Exception:
            if time.monotonic() > end:
                raise
    while len(session.get_system_info().client_info) < int(sites) and time.monotonic() < end:
        time.sleep(0.2)
    submitted = session.submit_job(job)
    session.monitor_job(submitted, timeout=300, poll_interval=0.5)
    meta, folder = session.get_job_meta(submitted), session.download_job_result(submitted)
    session.close()
    print(json.dumps({"status": meta["status"], "folder": folder}))


if __name__ == "__main__":
    main(*sys.argv[1:])
