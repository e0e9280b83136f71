"""Download of a known file over HTTPS: whole and with the right SHA-256, or not at all."""

import hashlib
import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import BaseHandler, HTTPSHandler, OpenerDirector

from eqxgen._files import atomic

from ...config.known import KnownFile

_SOCKET_TIMEOUT = 20.0
_SLOWEST = 20_000  # bytes a second; a slower server counts as stalled
_CHUNK = 1 << 16


class DownloadError(Exception):
    """No place gave the file; the message has each place's reason."""


def download(known: KnownFile, target: Path, opener: OpenerDirector | None = None, grace: float = 60.0) -> None:
    """Writes `target` from the first of `known.urls` that serves it.

    The body goes to a part file beside the target, is cut off past the known size, and becomes the target only when its
    SHA-256 is right.

    Args:
        known: what to fetch, and from where.
        target: the path to write; its folder is made.
        opener: how URLs are opened; by default HTTPS alone, redirects included.
        grace: seconds allowed besides those that the slowest accepted speed takes.

    Raises:
        DownloadError: no place gave the file, or the folder cannot be written. No part of it is left.
    """
    opener = opener or make_opener()
    reasons = []
    for url in known.urls:
        try:
            with atomic(target) as part, part.open("wb") as file:
                _copy(opener, url, known, file.write, grace)
            return
        except urllib.error.HTTPError as error:
            error.close()
            reasons.append(f"{urlsplit(url).netloc}: {error}")
        except urllib.error.URLError as error:
            reasons.append(f"{urlsplit(url).netloc}: {error.reason}")
        except (DownloadError, OSError, ValueError, http.client.HTTPException) as error:
            reasons.append(f"{urlsplit(url).netloc}: {error}")
    raise DownloadError("; ".join(reasons))


def make_opener(
    allowed: Callable[[str], bool] = lambda url: url.startswith("https://"), transport: BaseHandler | None = None
) -> OpenerDirector:
    """An opener that cannot open a file, an FTP or a plain HTTP address, and follows no redirect that `allowed`
    refuses.
    """
    opener = OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirect(allowed),
        transport or HTTPSHandler(),
    ):
        opener.add_handler(handler)
    return opener


class _Redirect(urllib.request.HTTPRedirectHandler):
    def __init__(self, allowed: Callable[[str], bool]):
        self.allowed = allowed

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not self.allowed(newurl):
            fp.close()
            raise DownloadError(f"redirected to {newurl}, which is refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _copy(opener: OpenerDirector, url: str, known: KnownFile, write: Callable[[bytes], object], grace: float) -> None:
    """Hands the body to `write`, and raises unless it is the known file."""
    digest, count = hashlib.sha256(), 0
    started = time.monotonic()
    with opener.open(url, timeout=_SOCKET_TIMEOUT) as response:
        if response.status != 200:
            raise DownloadError(f"the server answered with status {response.status}")
        while chunk := response.read1(_CHUNK):
            if count == 0 and chunk.lstrip()[:1] == b"<":
                raise DownloadError("the server sent a web page instead of the file")
            count += len(chunk)
            if count > known.size:
                raise DownloadError(f"the server sent more than the file's {known.size:,} bytes")
            if time.monotonic() - started > grace + count / _SLOWEST:
                raise DownloadError(
                    f"the server is too slow: {count:,} of {known.size:,} bytes in {time.monotonic() - started:.0f} s"
                )
            digest.update(chunk)
            write(chunk)
            _show(url, count, known.size)
    if digest.hexdigest() != known.sha256:
        raise DownloadError(
            f"SHA-256 {known.sha256} was expected, got {digest.hexdigest()} after {count:,} of {known.size:,} bytes"
        )


def _show(url: str, count: int, size: int) -> None:
    """A progress line for a person; nothing in a log file."""
    if sys.stderr.isatty():
        end = "\n" if count == size else ""
        print(f"\rDownloading {url}: {count / 1e6:.1f} of {size / 1e6:.1f} MB", end=end, file=sys.stderr, flush=True)
