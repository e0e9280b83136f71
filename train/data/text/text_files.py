"""Text of files, checked to be UTF-8, with one kind of line end."""

from pathlib import Path

from ..._errors import DataError
from ..files.broken import Say, read_each
from ..files.contents import MAX_BYTES, read_bytes
from ..files.listing import counted, list_files

SUFFIXES = (".txt", ".text", ".md")


def read_text(
    path: Path, *, keep_newlines: bool = False, skip_broken: bool = False, say: Say = print, limit: int = MAX_BYTES
) -> dict[str, str]:
    """The texts of a file, or of all files `.txt`, `.text` and `.md` of a folder and those below it, by relative path
    and in its order.

    Args:
        path: of the file or folder.
        keep_newlines: leave CR LF and CR as they are, in place of LF.
        skip_broken: leave out files that cannot be read, in place of an error; of a folder.
        say: takes a line about the files of a folder that were read and left out.
        limit: bytes of all files together.

    Raises:
        DataError: there is none, one is empty or not UTF-8, or together they have more than `limit` bytes.
    """
    read = lambda path: decode(path, read_bytes(path, limit), keep_newlines=keep_newlines)
    if not path.is_dir():
        return {path.name: read(path)}
    listing = list_files(path, SUFFIXES)
    if not listing.found:
        raise DataError(path, f"text files ({' '.join(SUFFIXES)})", "none", "put the text there, or name its file")
    sizes = [(path / name).stat().st_size for name in listing.found if (path / name).exists()]
    if sum(sizes) > limit:
        hint = "prepare ids with your own tokenizer"
        raise DataError(path, f"at most {limit:,} bytes of text", f"{sum(sizes):,}", hint)
    texts = read_each(path, listing.found, read, skip=skip_broken, say=say)
    kept = {name: text for name, text in zip(listing.found, texts) if text is not None}
    say(f"{path}: {counted(len(kept), 'text')}; {listing.left_out()}")
    return kept


def decode(path: Path, data: bytes, *, keep_newlines: bool = False) -> str:
    """UTF-8 as text, without a byte-order mark, and with LF for CR LF and CR.

    Raises:
        DataError: the bytes are not UTF-8; the first wrong one is named.
    """
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        got = f"byte {data[error.start]:#04x} at offset {error.start:,} ({error.reason})"
        hint = "convert it, such as with iconv -t UTF-8, or take the file out"
        raise DataError(path, "UTF-8 text", got, hint) from None
    return text if keep_newlines else text.replace("\r\n", "\n").replace("\r", "\n")
