"""A repository on loopback that keeps Zenodo's rules: tokens and scopes, the states of a deposit, checksums, and its errors."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN, READER, STRANGER = "t0ken-of-the-lead", "t0ken-without-scopes", "t0ken-of-a-stranger"
REQUIRED = ("title", "upload_type", "description", "creators")


class Repository:
    """Deposits by number. `faults`: (verb, pattern, what happens once at that request): `cut early`, `cut before`, `cut after`,
    `429`, `503`, `checksum`, `not json`, `redirect`, `elsewhere`. `seen`: every request as `VERB path`."""

    def __init__(self) -> None:
        self.deposits: dict[int, dict[str, Any]] = {}
        self.files: dict[int, dict[str, bytes]] = {}
        self.faults: list[tuple[str, str, str]] = []
        self.seen: list[str] = []
        self.base = ""
        self.next = 1000

    def fault(self, verb: str, path: str) -> str:
        for one in self.faults:
            if one[0] == verb and re.search(one[1], path):
                self.faults.remove(one)
                return one[2]
        return ""

    def record(self, number: int) -> dict[str, Any]:
        value, root = self.deposits[number], self.base
        files = [
            {"id": f"file-{name}", "filename": name, "filesize": len(data), "checksum": hashlib.md5(data).hexdigest()}
            for name, data in self.files[number].items()
        ]
        links = {
            "bucket": f"{root}/files/bucket-{number}",
            "html": f"{root}/deposit/{number}",
            "latest_draft": f"{root}/deposit/depositions/{value['draft']}",
        }
        if value["submitted"]:
            links["record_html"] = f"{root}/records/{number}"
        metadata = value["metadata"] | {"prereserve_doi": {"doi": f"10.5072/zenodo.{number}", "recid": number}}
        shown = {"id": number, "submitted": value["submitted"], "links": links, "metadata": metadata, "files": files}
        return shown | ({"doi": f"10.5072/zenodo.{number}"} if value["submitted"] else {})

    def make(self, metadata: Mapping[str, Any], files: Mapping[str, bytes] | None = None) -> int:
        self.next += 1
        self.deposits[self.next] = {"submitted": False, "metadata": dict(metadata), "draft": self.next}
        self.files[self.next] = dict(files or {})
        return self.next

    # ---- what the API does ------------------------------------------------------------------------------------------
    def answer(self, verb: str, path: str, body: bytes) -> tuple[int, Any]:
        if (verb, path.split("?")[0]) == ("POST", "/deposit/depositions"):
            return 201, self.record(self.make(json.loads(body or b"{}").get("metadata", {})))
        if (verb, path.split("?")[0]) == ("GET", "/deposit/depositions"):
            return 200, [self.record(n) for n, d in sorted(self.deposits.items(), reverse=True) if not d["submitted"]]
        found = re.fullmatch(r"/files/bucket-(\d+)/(.+)", path)
        if found:
            return self._file(int(found[1]), found[2], body)
        found = re.fullmatch(r"/deposit/depositions/(\d+)(.*)", path)
        if not found or int(found[1]) not in self.deposits:
            return 404, {"status": 404, "message": "PID does not exist."}
        return self._deposit(verb, int(found[1]), found[2], body)

    def _file(self, number: int, name: str, body: bytes) -> tuple[int, Any]:
        if self.deposits[number]["submitted"]:
            return 403, {"status": 403, "message": "Bucket is locked for modification."}
        self.files[number][name] = body
        return 201, {"key": name, "size": len(body), "checksum": "md5:" + hashlib.md5(body).hexdigest()}

    def _deposit(self, verb: str, number: int, rest: str, body: bytes) -> tuple[int, Any]:
        value = self.deposits[number]
        if (verb, rest) == ("GET", ""):
            return 200, self.record(number)
        if (verb, rest) == ("PUT", ""):
            if value["submitted"]:
                return 403, {"status": 403, "message": "Deposition is published."}
            metadata = json.loads(body)["metadata"]
            missing = [name for name in REQUIRED if not metadata.get(name)]
            if missing:
                errors = [{"field": f"metadata.{name}", "message": "Missing data for required field."} for name in missing]
                return 400, {"status": 400, "message": "Validation error.", "errors": errors}
            value["metadata"] = metadata
            return 200, self.record(number)
        if (verb, rest) == ("POST", "/actions/publish"):
            if value["submitted"]:
                return 409, {"status": 409, "message": "The deposition is published already."}
            if not self.files[number] or not value["metadata"].get("title"):
                return 400, {"status": 400, "message": "Validation error.", "errors": [{"field": "files", "message": "none"}]}
            value["submitted"] = True
            return 202, self.record(number)
        if (verb, rest) == ("POST", "/actions/newversion"):
            if not value["submitted"]:
                return 409, {"status": 409, "message": "Only a published record has new versions."}
            if value["draft"] == number:
                value["draft"] = self.make(value["metadata"], self.files[number])
            return 201, self.record(number)
        gone = re.fullmatch(r"/files/file-(.+)", rest)
        if verb == "DELETE" and gone and not value["submitted"]:
            self.files[number].pop(gone[1], None)
            return 204, None
        return 405, {"status": 405, "message": "Method not allowed."}


@contextmanager
def repository() -> Iterator[Repository]:
    """A running double; its address is `base`."""
    it = Repository()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            verb, path = self.command, self.path.removeprefix("/api")
            fault = it.fault(verb, path)
            it.seen.append(f"{verb} {path}")
            if fault == "cut early":
                self.rfile.read(min(10, int(self.headers.get("Content-Length") or 0)))
                return self._cut()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if fault == "cut before":
                return self._cut()
            if fault in ("429", "503"):
                return self._say(int(fault), {"message": "slow down"}, {"Retry-After": "7"} if fault == "429" else {})
            if fault == "redirect":
                return self._say(302, None, {"Location": "http://127.0.0.1:9/steal"})
            status, value = self._allowed() or it.answer(verb, path, body)
            if fault == "cut after":
                return self._cut()
            if fault == "checksum":
                value = dict(value) | {"checksum": "md5:" + "0" * 32}
            if fault == "elsewhere":
                value = dict(value) | {"links": dict(value["links"]) | {"bucket": "https://evil.example/bucket"}}
            if fault == "not json":
                value = "<html>"
            return self._say(status, value, {})

        def _allowed(self) -> tuple[int, Any] | None:
            given = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if given not in (TOKEN, READER, STRANGER):
                return 401, {"status": 401, "message": "The server could not verify that you are authorized."}
            if given == READER and self.command != "GET":
                return 403, {"status": 403, "message": "Insufficient scope."}
            if given == STRANGER and re.search(r"depositions/\d", self.path):
                return 403, {"status": 403, "message": "Not yours."}
            return None

        def _say(self, status: int, value: Any, headers: Mapping[str, str]) -> None:
            data = b"" if value is None else value.encode() if value == "<html>" else json.dumps(value).encode()
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.close()

        do_GET = do_POST = do_PUT = do_DELETE = handle_one

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None
    it.base = f"http://127.0.0.1:{server.server_port}/api"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield it
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
