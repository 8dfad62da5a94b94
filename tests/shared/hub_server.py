"""A Hugging Face Hub of our own on loopback: as much of its HTTP API as huggingface_hub asks for here."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import close_session, constants

TOKEN = "hf_test"
LARGE = (".safetensors", ".parquet", ".png", ".jpg")
"""Suffixes that lie in the large file storage."""


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1] if self.commits else {}

    @property
    def sha(self) -> str:
        return self.commits[-1][0] if self.commits else "0" * 40

    def add(self, files: dict[str, bytes]) -> str:
        """Commit files; gives the commit."""
        content = {**self.files, **files}
        text = json.dumps([len(self.commits), sorted((name, sum_of(name, data)) for name, data in content.items())])
        self.commits.append((hashlib.sha1(text.encode()).hexdigest(), content))
        return self.sha

    def at(self, revision: str) -> dict[str, bytes] | None:
        return self.files if revision == "main" else dict(self.commits).get(revision)


def git_sum(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sum_of(name: str, data: bytes) -> str:
    """By what the Hub knows a file: a sha256 for large ones, else Git's own sum."""
    return hashlib.sha256(data).hexdigest() if name.endswith(LARGE) else git_sum(data)


@dataclass
class Hub:
    """The repositories by kind and name, such as models/ann/fruit."""

    repos: dict[str, Repo] = field(default_factory=dict)
    served_as: dict[str, bytes] = field(default_factory=dict)
    """Other bytes than the listed ones, by the file's path: a damaged download."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """The large file storage, by sha256."""
    asked: list[str] = field(default_factory=list)
    """Method and path of all requests."""
    writers: tuple[str, ...] = ("ann",)
    """The names below which the token may write."""
    address: str = ""

    def model(self, name: str, **how: Any) -> Repo:
        return self.repos.setdefault(f"models/{name}", Repo(**how))

    def dataset(self, name: str, **how: Any) -> Repo:
        return self.repos.setdefault(f"datasets/{name}", Repo(**how))


class Refused(Exception):
    def __init__(self, status: int, code: str = "", body: Any = None) -> None:
        super().__init__(status, code)
        self.status, self.code, self.body = status, code, json.dumps(body or {}).encode()


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers: dict[str, str] = {}
        try:
            answer = self._found(path, body, headers)
            status, data = 200, answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        except Refused as refused:
            status, data = refused.status, refused.body
            headers = {"X-Error-Code": refused.code} if refused.code else {}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _found(self, path: str, body: bytes, headers: dict[str, str]) -> Any:
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|preupload|commit)/(.+))?", path):
            repo = self._repo(f"{match[1]}/{match[2]}", writes=match[3] in ("preupload", "commit"))
            return self._api(repo, match[2], match[3], match[4] or "main", body)
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo = self._repo(f"{(match[1] or 'models/').rstrip('/')}/{match[2]}")
            if repo.gated:
                raise Refused(403, "GatedRepo")
            return self._file(repo, match[3], match[4], headers)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            assert isinstance(yaml.safe_load(text.split("---")[1]), dict)
            return {"warnings": [], "errors": []}
        if path.endswith(".git/info/lfs/objects/batch"):
            upload = {"upload": {"href": f"{self.hub.address}/lfs"}}
            return {"objects": [{**it, "actions": upload} for it in json.loads(body)["objects"]]}
        if path == "/lfs":
            self.hub.stored[hashlib.sha256(body).hexdigest()] = body
            return {}
        raise Refused(404)

    def _is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, name: str, writes: bool = False) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self._is_known()):
            raise Refused(401 if not self._is_known() else 404, "RepoNotFound")
        if writes and (not self._is_known() or name.split("/")[1] not in self.hub.writers):
            raise Refused(403)
        return repo

    def _create(self, asked: dict[str, Any]) -> Any:
        if not self._is_known():
            raise Refused(401)
        if asked["organization"] not in self.hub.writers:
            raise Refused(403)
        name = f"{asked['organization']}/{asked['name']}"
        if f"models/{name}" in self.hub.repos:
            raise Refused(409, body={"url": f"{self.hub.address}/{name}"})
        self.hub.model(name, private=asked.get("visibility") == "private").add(
            {".gitattributes": b"*.safetensors filter=lfs\n"}
        )
        return {"url": f"{self.hub.address}/{name}"}

    def _api(self, repo: Repo, name: str, what: str | None, revision: str, body: bytes) -> Any:
        files = repo.at(revision)
        if files is None:
            raise Refused(404, "RevisionNotFound")
        if what in (None, "revision"):
            sha = repo.sha if revision == "main" else revision
            return {"id": name, "sha": sha, "private": repo.private, "siblings": [{"rfilename": path} for path in files]}
        if what == "tree":
            return [_listed(path, data) for path, data in files.items()]
        if what == "preupload":
            asked = [it["path"] for it in json.loads(body)["files"]]
            return {"files": [self._mode(path, files.get(path)) for path in asked]}
        lines = [json.loads(line) for line in body.splitlines()]
        added = {}
        for line in lines:
            if line["key"] == "file":
                added[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                added[line["value"]["path"]] = self.hub.stored[line["value"]["oid"]]
        sha = repo.add(added)
        return {"commitUrl": f"{self.hub.address}/{name}/commit/{sha}", "commitOid": sha}

    def _mode(self, path: str, there: bytes | None) -> dict[str, Any]:
        mode = "lfs" if path.endswith(LARGE) else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None if there is None else sum_of(path, there)}

    def _file(self, repo: Repo, revision: str, path: str, headers: dict[str, str]) -> bytes:
        files = repo.at(revision)
        if files is None or path not in files:
            raise Refused(404, "RevisionNotFound" if files is None else "EntryNotFound")
        headers |= {"ETag": f'"{sum_of(path, files[path])}"', "X-Repo-Commit": repo.sha if revision == "main" else revision}
        return self.hub.served_as.get(path, files[path])


def _listed(path: str, data: bytes) -> dict[str, Any]:
    found = {"type": "file", "path": path, "size": len(data)}
    if not path.endswith(LARGE):
        return {**found, "oid": git_sum(data)}
    oid = sum_of(path, data)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n".encode()
    return {**found, "oid": git_sum(pointer), "lfs": {"oid": oid, "size": len(data), "pointerSize": len(pointer)}}


@contextmanager
def loopback_hub(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, with huggingface_hub led to it: an empty cache in the folder, nobody logged in."""
    hub = Hub()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("OfThisHub", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        hub.address = f"http://127.0.0.1:{http.server_port}"
        changed = {
            "ENDPOINT": hub.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(folder / "hub-cache"),
            "HF_TOKEN_PATH": str(folder / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,  # its storage speaks another protocol
        }
        for name, value in changed.items():
            patch.setattr(constants, name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(name, raising=False)
        yield hub
    finally:
        close_session()
        http.shutdown()
        thread.join()
        http.server_close()
