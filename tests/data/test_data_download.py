"""The downloader against a server of our own that misbehaves in every way we know."""

import hashlib
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from train.config.known import KnownFile
from train.data import DataConfig, DataError, load
from train.data.files.download import DownloadError, download, make_opener
from train.data.files.known_files import KnownFiles

BODY = bytes(range(256)) * 400
KNOWN_SUM = hashlib.sha256(BODY).hexdigest()


class Evil(BaseHTTPRequestHandler):
    """`/<behaviour>/...` answers accordingly."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        getattr(self, self.path.split("/")[1], self.missing)()
        self.close_connection = True

    def log_message(self, *args):
        pass

    def answer(self, body, length=None, status=200, **headers):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body) if length is None else length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def missing(self):
        self.answer(b"", status=404)

    def good(self):
        self.answer(BODY)

    def altered(self):
        self.answer(BODY[:-1] + b"!")

    def short(self):
        self.answer(BODY[:-1000])

    def cut(self):
        self.answer(BODY[:-1000], length=len(BODY))

    def empty(self):
        self.answer(b"")

    def partial(self):
        self.answer(BODY, status=206)

    def page(self):
        self.answer(b"\n<!DOCTYPE html><title>Log in</title>")

    def garbage(self):
        self.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    def endless(self):
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(100_000))
        except OSError:
            self.server.stopped.set()

    def slow(self):
        self.send_response(200)
        self.end_headers()
        try:
            for byte in BODY:
                self.wfile.write(bytes([byte]))
                time.sleep(0.01)
        except OSError:
            self.server.stopped.set()

    def moved(self):
        self.answer(b"", status=302, Location=f"{self.server.origin}/good/file")

    def loop(self):
        self.answer(b"", status=302, Location=f"{self.server.origin}/loop/file")

    def to_http(self):
        self.answer(b"", status=302, Location="http://127.0.0.1:1/file")

    def to_file(self):
        self.answer(b"", status=301, Location="file:///etc/hostname")

    def to_ftp(self):
        self.answer(b"", status=307, Location="ftp://127.0.0.1/file")


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Evil) as made:
        made.origin = f"http://127.0.0.1:{made.server_port}"
        made.stopped = threading.Event()
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def opener(server, monkeypatch):
    """Opens addresses of the test server alone, as the real one opens HTTPS alone."""
    monkeypatch.setenv("no_proxy", "*")
    return make_opener(lambda url: url.startswith(server.origin), urllib.request.HTTPHandler())


def known(server, *behaviours):
    return KnownFile("file", len(BODY), KNOWN_SUM, tuple(f"{server.origin}/{name}/" for name in behaviours))


BEHAVIOURS = [
    ("missing", "HTTP Error 404"),
    ("altered", f"SHA-256 {KNOWN_SUM} was expected, got [0-9a-f]{{64}} after 102,400 of 102,400"),
    ("short", "after 101,400 of 102,400"),
    ("cut", "101,400|IncompleteRead"),
    ("empty", "after 0 of 102,400"),
    ("partial", "status 206"),
    ("page", "sent a web page"),
    ("garbage", "SSH"),
    ("endless", "more than the file's 102,400 bytes"),
    ("slow", "too slow"),
    ("loop", "infinite loop|HTTP Error 302"),
    ("to_http", "redirected to http://127.0.0.1:1/file, which is refused"),
    ("to_file", "not allowed|file://"),
    ("to_ftp", "redirected to ftp://127.0.0.1/file, which is refused"),
]


@pytest.mark.parametrize(("behaviour", "message"), BEHAVIOURS)
def test_a_server_that_misbehaves_is_refused_and_leaves_nothing(behaviour, message, server, opener, tmp_path):
    server.stopped.clear()
    with pytest.raises(DownloadError, match=message):
        download(known(server, behaviour), tmp_path / "set" / "file", opener, grace=0.3)
    assert not list((tmp_path / "set").iterdir())
    if behaviour in ("endless", "slow"):
        assert server.stopped.wait(10)


@pytest.mark.parametrize("behaviours", [("good",), ("moved",), ("missing", "page", "good")])
def test_the_file_comes_from_the_first_place_that_has_it(behaviours, server, opener, tmp_path):
    download(known(server, *behaviours), tmp_path / "set" / "file", opener)
    assert (tmp_path / "set" / "file").read_bytes() == BODY
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["file"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/file", "file:///etc/hostname", "ftp://127.0.0.1/file", "data:,x"])
def test_the_real_opener_opens_https_alone(url, tmp_path):
    with pytest.raises(DownloadError, match="unknown url type"):
        download(KnownFile(url, 10, "0" * 64, ("",)), tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(server, opener, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DownloadError, match="file"):
        download(known(server, "good"), tmp_path / "file" / "sub" / "x", opener)


def test_a_download_goes_into_the_cache_and_a_failed_one_says_which_file_to_put_where(server, opener, tmp_path):
    name = "mnist/train-images-idx3-ubyte.gz"
    (tmp_path / "root").mkdir()
    folders = (tmp_path / "root", tmp_path / "cache")
    good = KnownFiles(folders, lambda file, target: download(file, target, opener), {name: known(server, "good")})
    assert good.read(name) == (tmp_path / "cache" / name, BODY)
    assert good.find(name) == tmp_path / "cache" / name
    (tmp_path / "cache" / name).unlink()
    bad = KnownFiles(folders, good.download, {name: known(server, "missing", "page")})
    with pytest.raises(DataError) as caught:
        load(DataConfig("mnist"), bad)
    message = str(caught.value)
    for part in (
        str(tmp_path / "root" / name),
        "404",
        "web page",
        f"{server.origin}/page/file",
        KNOWN_SUM,
        "102,400 bytes",
        "--data.root",
    ):
        assert part in message
