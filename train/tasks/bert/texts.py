"""Vocabulary of a run of BERT, and the texts that the model of `--from` was trained on."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._errors import UsageError, UserError
from ..._files import read_json
from ...config.tasks import PIECES

if TYPE_CHECKING:
    from ...data.tables.tasks import LabelledTexts
    from ...data.text.word_pieces import WordPieces


def vocabulary_for(config: Any, folder: Path | None, texts: Iterable[tuple[str, ...]]) -> "WordPieces":
    """The vocabulary of a run: its own where it goes on, that of `--from`, or the one that `--data.tokenizer` names.

    Args:
        folder: of the run; None on paper.
        texts: that a vocabulary is learnt from.

    Raises:
        DataError: the files are missing or damaged.
    """
    from ...data.text.vocabulary import NAME
    from ...data.text.word_pieces_file import open_word_pieces, read_word_pieces

    if folder is not None and (folder / NAME).is_file():
        return read_word_pieces(folder / NAME)
    if config.start_from is not None:
        return read_word_pieces(_folder(config.start_from))
    return open_word_pieces(config.data.tokenizer, (part for text in texts for part in text))


def vocab_on_paper(config: Any, texts: Callable[[], Iterable[tuple[str, ...]]]) -> int:
    """Size of the vocabulary: at most, of one that is learnt, so that no text is read."""
    start, named = config.start_from, PIECES.fullmatch(config.data.tokenizer)
    if named and (start is None or not Path(start).expanduser().exists()):
        return int(named[3])
    return vocabulary_for(config, None, texts() if start is None else ()).size


def check_tokenizer(config: Any, given: Iterable[str]) -> None:
    """Raises `UsageError` where a flag names a vocabulary beside that of `--from`."""
    if config.start_from is not None and "data.tokenizer" in given:
        raise UsageError(
            f"--data.tokenizer {config.data.tokenizer}: must be left out with --from, whose own vocabulary is used"
        )


def check_overlap(config: Any, task: "LabelledTexts", say: Callable[[str], object]) -> None:
    """Refuses a start from a run that was trained on texts of the tested parts.

    The runs that it started from are compared as well. A line names what could not be compared.

    Raises:
        UsageError: texts are shared, and `--data.allow-overlap` was not given.
    """
    from ...data.tables.parts import keys_of

    start = config.start_from
    while start is not None:
        texts, start_before = _trained_on(_folder(start))
        if texts is None:
            say(f"--from {start}: its training texts are not known, and not compared with those that are tested on")
            return
        seen = keys_of(texts)
        for name in ("test", "dev"):
            tested = keys_of(getattr(task, name).texts)
            if shared := len(seen & tested):
                line = f"{shared:,} of the {len(tested):,} texts of {task.name}'s part {name}"
                if not config.data.allow_overlap:
                    raise UsageError(
                        f"--from {start}: was trained on {line}, whose score would not be that of unseen texts; give "
                        "another run, or --data.allow-overlap"
                    )
                say(f"--from {start}: was trained on {line}")
        start = start_before


def _trained_on(folder: Path) -> tuple[Sequence[tuple[str, ...]] | None, str | None]:
    """Training texts of a run, None where they are not known; and the run that it started from."""
    from ...data.tables.tasks import load_task, load_texts
    from ...engine.recipes import recipe_of

    where = folder / "config.json"
    if not where.is_file() or "recipe" not in (record := read_json(where)):
        return None, None
    config = recipe_of(record, where).open(folder, record, where).config
    silent = lambda line: None
    try:
        if record["recipe"] == "bert":
            return load_texts(config.data, say=silent)[0], config.start_from
        return load_task(config.data, say=silent).train.texts, config.start_from
    except UserError:
        return None, None


def _folder(start: str) -> Path:
    path = Path(start).expanduser()
    return path if path.is_dir() else path.parent
