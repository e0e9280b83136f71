"""Tasks of texts that cannot be: cases 141 to 144 of the list of bad inputs."""

import json
import shlex
from pathlib import Path

from tests.train.bad_config import flags
from tests.train.bad_input import Case

LINES = [f"{'good' if number % 2 else 'bad'}\tword {number}" for number in range(40)]
TABLE = "\n".join(["label\ttext", *LINES, ""])


def table(what: str, text: str, says: str, words: str = "", recipe: str = "train.glue") -> Case:
    """A table at x.tsv."""

    def prepare(folder: Path) -> list[str]:
        (folder / "x.tsv").write_text(text, encoding="utf-8")
        columns = "" if "--data.columns" in words else "--data.columns label text"
        return [recipe, "--run-dir", "run", "--data.name", "./x.tsv", *shlex.split(f"{columns} {words}")]

    return Case(141, what, prepare, says)


def wrong(words: str, says: str, module: str = "train.glue") -> Case:
    return flags(142, words, says, module=module)


def start(what: str, says: str, words: str, status: int = 1) -> Case:
    """A folder without a vocabulary to start from."""

    def prepare(folder: Path) -> list[str]:
        (folder / "w").mkdir()
        (folder / "x.tsv").write_text(TABLE, encoding="utf-8")
        data = "--data.name ./x.tsv --data.columns label text"
        return ["train.glue", "--run-dir", "run", *shlex.split(f"{data} {words}")]

    return Case(143, what, prepare, says, status)


def encoder(what: str, config: dict[str, str], says: str) -> Case:
    """A folder whose config.json is of no encoder of texts, or that is all that is there of one."""

    def prepare(folder: Path) -> list[str]:
        (folder / "w").mkdir()
        (folder / "w" / "config.json").write_text(json.dumps(config))
        return ["train.muse", "--run-dir", "run", "--text-encoder", "w", "--dry-run"]

    return Case(144, what, prepare, says)


CASES = [
    table("a text column that is missing", TABLE, "x.tsv: expected a column 'txt', got columns label, text: correct --data.columns", "--data.columns label txt"),
    table("one class of texts alone", TABLE.replace("good", "bad"), "x.tsv: expected at least 2 classes, by the column label, got 1, 'bad': correct --data.columns, or add rows of another"),
    table("a class without texts", TABLE.replace("good", "2").replace("bad", "0"), "x.tsv: expected labels from 0 to 2, by the column label, got no row of class 1: number the labels from 0"),
    table("a grade that is no number", TABLE, "x.tsv, line .*: expected a finite number as the grade, got", "--data.grades"),
    table("one grade of texts alone", TABLE.replace("good", "1").replace("bad", "1"), "x.tsv: expected two or more grades in the part train, by the column label, got 1 alone: correct --data.columns", "--data.grades"),
    wrong("--data.name sst3", "data.name must be one of trec, sst2, .*: got 'sst3'; did you mean sst"),
    wrong("--data.name ./x.tsv", r"data\.columns must name the label's and the text's column of \./x\.tsv"),
    wrong("--data.fold 10", "data.fold must be from 0 to 9: got 10"),
    wrong("--new-head", "new_head goes with --from, which was not given"),
    wrong("--word-dropout 1", r"word_dropout must be in \[0, 1\): got 1"),
    wrong("--model.pooling last", "pooling must be one of first, mean, max: got 'last'|first, mean, max"),
    wrong("--masked 1", "masked must be between 0 and 1: got 1", "train.bert"),
    wrong("--from w --data.tokenizer words-99", r"--data\.tokenizer words-99: must be left out with --from"),
    start("a start without weights", "--from w: must be the folder of a run", "--from w", 2),
    wrong("--text-encoder x --text-tokenizer bytes", "--text-tokenizer bytes: must be left out with --text-encoder x, whose own", "train.muse"),
    wrong("--text-encoder ' '", "text_encoder must be the folder of an encoder of texts: got ' '", "train.parti"),
    flags(142, "--text-encoder x --dry-run", "--text-encoder x: must be on paper a folder that is there, or be named t5-small, t5-", 1, "train.muse"),
    wrong("--text-encoder clip-vit-base-patch32 --model.context 77 --dry-run", "--model.context must be at most the 76 tokens of --text-encoder clip-", "train.parti"),
    encoder("an encoder of images", {"model_type": "vit"}, "--text-encoder w: must be an encoder of texts: got model_type 'vit': give the folder of"),
    encoder("a run of another recipe", {"recipe": "vqgan"}, "--text-encoder w: is a run of train.vqgan, which has no encoder of texts: give"),
    encoder("an encoder without its tokenizer", {"model_type": "t5"}, "--text-encoder w: w: must have a tokenizer, one of tokenizer.json, "),
]  # fmt: skip
