"""Models of the Hugging Face hub (extra `hub`): the files of a named revision, each checked by its digest.

Only config.json and one kind of weights are fetched, over HTTPS, into huggingface_hub's cache. No code of a repository
runs.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eqxgen.pretrained.files import CONFIG, WEIGHTS
from eqxgen.pretrained.formats.stored import printable, refused

COMMIT = re.compile(r"[0-9a-f]{40}")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CHUNK = 2**20


def fetched(name: str, revision: str) -> Path:
    """The folder of a model's files.

    Args:
        name: of the repository, owner/name.
        revision: a commit, which stays the same model for ever and is found again offline; or a branch or tag, which
            may move.

    Raises:
        ValueError: there is no such model or revision, it has no weights that are read, or a file is not the one that
            the hub lists.
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    try:
        import huggingface_hub
        from huggingface_hub import constants
        from huggingface_hub.errors import HfHubHTTPError, HTTPError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'no module {error.name}: pip install "eqxgen[hub]"', name=error.name) from None
    where = f"{name}@{revision}"
    if NAME.fullmatch(name) is None or not revision:
        raise refused(where, "owner/name and a revision", repr(where), 'such as "openai-community/gpt2"')
    address = urlsplit(constants.ENDPOINT)
    if address.scheme != "https":
        raise refused(where, "a hub over HTTPS", address.scheme, "unset HF_ENDPOINT")
    # Of an answer that is no hub's, such as a page of a gateway, the library raises the last three.
    errors = (HfHubHTTPError, HTTPError, OSError, ValueError, TypeError, KeyError)
    try:
        info = huggingface_hub.HfApi().model_info(name, revision=revision, files_metadata=True)
    except errors as error:
        return _checked(*_cached(name, revision, error))
    wanted = chosen(where, (entry.rfilename for entry in info.siblings or []))
    digests = {entry.rfilename: _listed(entry) for entry in info.siblings or [] if entry.rfilename in wanted}
    try:
        folder = Path(huggingface_hub.snapshot_download(name, revision=info.sha, allow_patterns=wanted))
    except errors as error:
        return _checked(*_cached(name, revision, error))
    return _checked(folder, digests)


def _checked(folder: Path, digests: dict[str, str]) -> Path:
    """The folder, whose files have their digests."""
    for file, digest in digests.items():
        if (got := _digest(folder / file, digest)) != digest:
            raise refused(folder / file, f"the digest {digest}", got, "delete the file and fetch it again")
    return folder


def chosen(where: str, names: Iterable[str]) -> list[str]:
    """The files of a repository that are fetched: config.json, and the first kind of weights that is read.

    Raises:
        ValueError: there are none.
    """
    names = [name for name in names if "/" not in name and name.isprintable()]
    for weights in WEIGHTS:
        stem, _, ending = weights.rpartition(".")
        parts = [name for name in names if re.fullmatch(rf"{stem}-\d+-of-\d+\.{ending}", name)]
        if weights in names:
            return [*({CONFIG} & {*names}), weights]
        if f"{weights}.index.json" in names and parts:
            return [*({CONFIG} & {*names}), f"{weights}.index.json", *parts]
    raise refused(where, f"one of {', '.join(WEIGHTS)}", f"{len(names)} others", "fetch its files and give one of them")


def _cached(name: str, revision: str, error: Exception) -> tuple[Path, dict[str, str]]:
    """The folder of a commit in the cache, where the hub is not reached."""
    import huggingface_hub

    reason = str(error).strip().split("\n")[0][:200]
    if COMMIT.fullmatch(revision) is None:
        hint = "check the name, the revision and the network; a commit that was fetched before is found offline"
        raise ValueError(printable(f"{name}@{revision}: cannot be fetched: {reason}: {hint}")) from None
    try:
        folder = Path(huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True))
    except OSError:
        raise ValueError(
            printable(f"{name}@{revision}: cannot be fetched, and is not in the cache: {reason}")
        ) from None
    # The cache names each file by its digest.
    files = [path.name for path in folder.iterdir() if path.is_file()]
    return folder, {file: (folder / file).resolve().name for file in chosen(f"{name}@{revision}", files)}


def _listed(entry: Any) -> str:
    """SHA-256 of a large file, and Git's SHA-1 of a small one."""
    return entry.lfs.sha256 if entry.lfs is not None else entry.blob_id


def _digest(path: Path, like: str) -> str:
    """The digest of a file, of the kind of another: SHA-256, or Git's of a blob, which counts its length."""
    total = hashlib.sha256() if len(like) == 64 else hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            total.update(part)
    return total.hexdigest()
