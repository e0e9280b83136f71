"""Run by test_hub_server.py in a process of its own: a hub over HTTPS on this machine, and what `fetched` makes of it.
Prints JSON: by case the text of the error, or of what was fetched.
"""

import hashlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from eqxgen.pretrained.formats import safetensors
from eqxgen.pretrained.formats.stored import held

SHA = "0123456789abcdef0123456789abcdef01234567"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
CASES = ("whole", "altered", "cut", "missing", "html", "paths", "short", "plain", "whole again")
ASKED: list[tuple[str, str | None]] = []


def weights(folder: Path) -> bytes:
    array = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    safetensors.write(folder / WEIGHTS, {"a": held(array)}, {})
    return (folder / WEIGHTS).read_bytes()


class Hub(BaseHTTPRequestHandler):
    """A repository `owner/CASE` for each case."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    cut = True

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        ASKED.append((path, self.headers.get("Range")))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.listing(parts[3], tree="tree" in parts)
        elif parts[0] == "cdn":
            self.content(parts[1], parts[2])
        elif len(parts) == 5 and parts[2] == "resolve":
            self.resolved(parts[1], parts[4])
        else:
            self.send(404, b"")

    def listing(self, case: str, tree: bool) -> None:
        if case == "missing":
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no such revision"})
        if case == "html":
            return self.send(200, b"<html>Sign in</html>")
        siblings = [entry(name, data) for name, data in self.files.items()]
        if case == "paths":
            siblings += [entry(name, b"x") for name in ("../escaped.json", "sub/model.safetensors", "..\\config.json")]
        if tree:
            return self.send(200, json.dumps([in_tree(each) for each in siblings]).encode())
        text = json.dumps({"id": f"owner/{case}", "modelId": f"owner/{case}", "sha": SHA, "siblings": siblings})
        return self.send(200, text.encode(), {"Content-Type": "application/json"})

    def resolved(self, case: str, name: str) -> None:
        """Headers of a file; the large one is elsewhere."""
        data = self.files[name]
        found = {"X-Repo-Commit": SHA, "ETag": f'"{blob(data)}"'}
        if name != WEIGHTS:
            return self.send(200, data, found)
        start = "http" if case == "plain" else "https"
        found |= {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
        where = f"{start}://127.0.0.1:{self.server.server_address[1]}/cdn/{case}/{name}"
        return self.send(302, b"", found | {"Location": where})

    def content(self, case: str, name: str) -> None:
        data = self.files[name]
        if case == "altered":
            data = data[:-4] + b"\0\1\2\3"
        if case == "short":
            data = data[:-100]
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if case == "cut" and Hub.cut and self.command == "GET":
            Hub.cut = False
            self.head(200, len(data), {})
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return None
        if begin:
            return self.send(206, data[begin:], {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"})
        return self.send(200, data)

    def head(self, status: int, length: int, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), "Accept-Ranges": "bytes", **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, status: int, data: bytes, more: dict[str, str] | None = None) -> None:
        self.head(status, len(data), more or {})
        if self.command == "GET":
            self.wfile.write(data)


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def entry(name: str, data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": blob(data)}
    if name.endswith(".safetensors"):
        found["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 100}
    return found


def in_tree(entry: dict[str, Any]) -> dict[str, Any]:
    """The same as a listing of folders has it."""
    found = {"type": "file", "path": entry["rfilename"], "oid": entry["blobId"], "size": entry["size"]}
    if large := entry.get("lfs"):
        found["lfs"] = {"oid": large["sha256"], "size": large["size"], "pointerSize": 100}
    return found


def certificate(folder: Path) -> tuple[str, str]:
    """Files of a certificate for this machine and of its key."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", cert]
    line += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(line, check=True, capture_output=True)
    return cert, key


def served(folder: Path) -> int:
    """Port of the hub, in a thread."""
    cert, key = certificate(folder)
    server = ThreadingHTTPServer(("localhost", 0), Hub)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {"SSL_CERT_FILE": cert, "REQUESTS_CA_BUNDLE": cert, "CURL_CA_BUNDLE": cert}
    return server.server_address[1]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Hub.files = {CONFIG: b'{"model_type": "gpt2"}', WEIGHTS: weights(folder)}
        port = served(folder)
        os.environ |= {"HF_ENDPOINT": f"https://localhost:{port}", "HF_HOME": str(folder / "home")}
        os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            os.environ.pop(proxy, None)
        from huggingface_hub import constants

        from eqxgen.pretrained.formats.hub import fetched

        constants.DOWNLOAD_CHUNK_SIZE = 2**14  # what is lost of a file that is cut
        found = {}
        for case in CASES:
            ASKED.clear()
            try:
                where = fetched(f"owner/{case.split()[0]}", SHA)
                same = {path.name: path.read_bytes() == Hub.files.get(path.name) for path in where.iterdir()}
                found[case] = {"files": same, "ranges": [span for _, span in ASKED if span and span != "bytes=0-0"]}
            except ValueError as error:
                found[case] = {"error": str(error)}
        outside = [str(path) for path in folder.rglob("*escaped*")]
    print(json.dumps({"cases": found, "outside": outside}))


if __name__ == "__main__":
    sys.exit(main())
