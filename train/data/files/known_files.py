"""Search, check and download of the files of known data sets."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from ..._errors import DataError
from ...config.data import SourceConfig, cache_folder
from ...config.known import KNOWN, KnownFile
from .contents import read_verified

FILES = MappingProxyType({f"{name}/{file.name}": file for name, known in KNOWN.items() for file in known.files})
"""Every known file by its path below a data folder."""


@dataclasses.dataclass(frozen=True)
class KnownFiles:
    """The folders that are searched in order; downloads go into the last of them.

    Args:
        folders: data folders, with files as `<folder>/mnist/train-images-idx3-ubyte.gz` and so on.
        download: writes the given file to the given path or raises `DownloadError`; `None` never downloads.
        files: the known files by their path below a folder.
    """

    folders: tuple[Path, ...]
    download: Callable[[KnownFile, Path], None] | None = None
    files: Mapping[str, KnownFile] = dataclasses.field(default_factory=lambda: FILES)

    @classmethod
    def of(cls, config: SourceConfig) -> "KnownFiles":
        """`data.root` or `$EQXGEN_DATA`, which must then exist, and the cache folder.

        Raises:
            DataError: that root is missing or not a folder.
        """
        from .download import download

        given = config.root or os.environ.get("EQXGEN_DATA")
        if not given:
            return cls((cache_folder(),), download)
        root = Path(given).expanduser()
        source = "--data.root" if config.root else "EQXGEN_DATA"
        if not root.is_dir():
            got = "a file" if root.exists() else "nothing there"
            hint = "correct the path, or leave it out to use the cache folder"
            raise DataError(root, f"a folder (from {source})", got, hint)
        return cls((root, cache_folder()), download)

    @property
    def decoded_folder(self) -> Path:
        """Folder of decoded arrays."""
        return self.folders[-1].parent / "decoded"

    def find(self, name: str) -> Path | None:
        """The first folder's file of that name, or `None`. A broken link counts as found, so that reading it is an
        error.
        """
        paths = (folder / name for folder in self.folders)
        return next((path for path in paths if os.path.lexists(path)), None)

    def read(self, name: str) -> tuple[Path, bytes]:
        """The path and the checked bytes of a known file, downloaded if no folder has it and it is published.

        Raises:
            DataError: the file is missing and cannot be downloaded, cannot be read, or is not the published one.
        """
        known = self.files[name]
        path = self.find(name)
        if path is None:
            path = self.folders[-1] / name
            self._download(name, known, path)
        return path, read_verified(path, known.sha256, known.size)

    def missing(self, name: str, reason: str = "") -> DataError:
        """The error for a file that no folder has, with the reason why it could not be downloaded."""
        known = self.files[name]
        source = f" from {' or '.join(known.urls)}" if known.urls else ""
        file = f"the file{source} there ({known.size:,} bytes, SHA-256 {known.sha256})"
        hint = f"put {file}, or name its folder with --data.root or EQXGEN_DATA"
        return DataError(self.folders[0] / name, "a file", f"nothing there{reason}", hint)

    def _download(self, name: str, known: KnownFile, target: Path) -> None:
        from .download import DownloadError

        if self.download is None or not known.urls:
            raise self.missing(name)
        try:
            self.download(known, target)
        except DownloadError as error:
            raise self.missing(name, f", and no download ({error})") from error
