"""A hub of one's own: a server that speaks the few endpoints which huggingface_hub asks for models."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "89abcdef0123456789abcdef0123456789abcdef"


@dataclass
class Repository:
    """The files of each commit, and what the server claims of them that is not so."""

    files: Mapping[str, bytes]
    older: Mapping[str, bytes] = field(default_factory=dict)  # at the tag "v1"
    error: tuple[int, str] | None = None  # status and error code, in place of any answer
    sizes: Mapping[str, int | None] = field(default_factory=dict)  # that the list tells
    hashes: Mapping[str, str] = field(default_factory=dict)  # that the list tells

    def at(self, revision: str) -> tuple[str, Mapping[str, bytes]] | None:
        if revision in ("main", COMMIT):
            return COMMIT, self.files
        return (OLDER, self.older) if revision in ("v1", OLDER) else None


@dataclass
class Hub:
    """A running server, and what was asked of it."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def fetched(self) -> list[str]:
        """The files that were downloaded."""
        return [
            line.rpartition("/resolve/")[2].partition("/")[2] for line in self.asked if line.startswith("GET /org/")
        ]


@contextmanager
def running() -> Iterator[Hub]:
    hub = Hub("")

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        listing = parts[:2] == ["api", "models"]
        parts = parts[2:] if listing else parts
        repository = self.hub.repositories.get("/".join(parts[:2]))
        if repository is None:
            return self._error(404, "RepoNotFound")
        if repository.error is not None:
            return self._error(*repository.error)
        revision = parts[3] if len(parts) > 3 else "main"
        at = repository.at(revision)
        if at is None:
            return self._error(404, "RevisionNotFound")
        if listing:
            return self._send(json.dumps(_listing(repository, "/".join(parts[:2]), *at)).encode(), {}, body)
        name = "/".join(parts[4:])
        if name not in at[1]:
            return self._error(404, "EntryNotFound")
        content = at[1][name]
        return self._send(content, {"X-Repo-Commit": at[0], "ETag": f'"{_sha256(content)}"'}, body)

    def _error(self, status: int, code: str) -> None:
        self._send(b"{}", {"X-Error-Code": code}, True, status)

    def _send(self, content: bytes, headers: Mapping[str, str], body: bool, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)


def _listing(repository: Repository, name: str, commit: str, files: Mapping[str, bytes]) -> dict:
    siblings = []
    for file, content in files.items():
        size = repository.sizes.get(file, len(content))
        hashed = repository.hashes.get(file, _sha256(content))
        siblings.append({
            "rfilename": file, "size": size, "blobId": "0" * 40,
            "lfs": {"size": size or 0, "sha256": hashed, "pointerSize": 134},
        })  # fmt: skip
    return {"id": name, "modelId": name, "sha": commit, "private": False, "tags": [], "siblings": siblings}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
