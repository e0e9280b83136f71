"""The parser: words and JSON to the fields of nested dataclasses, and one line for each mistake."""

import dataclasses
import json
from pathlib import Path
from typing import Literal

import pytest

from train import diffusion, gpt, maskgit
from train._errors import UsageError, UserError
from train.config.base import flat, from_dict, parse, to_dict
from train.config.file import decode
from train.config.flags import parse as parse_words
from train.config.options import free, moving, option, options
from train.run.folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Inner:
    """Nested options."""

    peak_rate: float = option(1.0, alias="pr")
    """Highest rate."""
    sizes: tuple[int, ...] = (1, 2)
    """Sides."""
    kind: Literal["plain", "fancy"] = "plain"
    """Form."""
    strict: bool = True
    """Refuse."""

    def __post_init__(self):
        if self.peak_rate <= 0:
            raise ValueError(f"inner.peak_rate must be positive: got {self.peak_rate}")


@dataclasses.dataclass(frozen=True)
class Outer:
    """Options of every type."""

    name: str = option("x", free=True)
    count: int | None = None
    widths: tuple[float, ...] | None = None
    order: Literal["first", "last", "as_given"] | None = None
    fast: bool = False
    inner: Inner = option(factory=lambda: Inner(sizes=(3,)), first=("kind",))


@dataclasses.dataclass(frozen=True)
class Placed:
    source: str = option(positional=True)
    out: Path = option(positional=True)
    size: int = option()


def parsed(*words):
    return flat(dataclasses.asdict(parse_words(Outer, "command", "", words)))


PLAIN = {
    "name": "x",
    "count": None,
    "widths": None,
    "order": None,
    "fast": False,
    "inner.peak_rate": 1.0,
    "inner.sizes": (3,),
    "inner.kind": "plain",
    "inner.strict": True,
}
GOOD = {
    "nothing": ([], {}),
    "dashes": (["--inner.peak-rate", "2"], {"inner.peak_rate": 2.0}),
    "underscores": (["--inner.peak_rate=2e-3"], {"inner.peak_rate": 2e-3}),
    "an alias": (["--pr", "inf"], {"inner.peak_rate": float("inf")}),
    "several values": (["--inner.sizes", "4", "-5", "--fast"], {"inner.sizes": (4, -5), "fast": True}),
    "one of several values": (["--inner.sizes=4"], {"inner.sizes": (4,)}),
    "none of several values": (["--inner.sizes"], {"inner.sizes": ()}),
    "several values or None": (["--widths", "1", "2.5"], {"widths": (1.0, 2.5)}),
    "a choice": (["--inner.kind", "fancy", "--order=last"], {"inner.kind": "fancy", "order": "last"}),
    "a choice of words": (["--order", "as-given"], {"order": "as_given"}),
    "a negative number": (["--count", "-3"], {"count": -3}),
    "grouped digits": (["--count=1_000"], {"count": 1000}),
    "None": (["--count", "None"], {}),
    "no": (["--inner.no-strict"], {"inner.strict": False}),
    "true and false": (["--fast=True", "--inner.strict=false"], {"fast": True, "inner.strict": False}),
    "an equals sign in a value": (["--name=a=b"], {"name": "a=b"}),
    "a value that begins with a dash": (["--name", "-x"], {"name": "-x"}),
    "a value that begins with two": (["--name=--x"], {"name": "--x"}),
    "an empty text": (["--name="], {"name": ""}),
}


@pytest.mark.parametrize("case", GOOD)
def test_words_become_values(case):
    words, changes = GOOD[case]
    found = parsed(*words)
    assert found == PLAIN | changes
    assert [type(value) for value in found.values()] == [type(value) for value in (PLAIN | changes).values()]


BAD = [
    ("--count", "--count must be a whole number: got no value"),
    ("--count --fast", "--count must be a whole number: got no value"),
    ("--count 1.0", "--count must be a whole number: got '1.0'"),
    ("--count 0x10", "--count must be a whole number: got '0x10'"),
    ("--count=", "--count must be a whole number: got ''"),
    ("--count ٣", "--count must be a whole number: got '٣'"),
    ("--inner.peak_rate fast", "--inner.peak-rate must be a number: got 'fast'"),
    ("--pr=1e", "--inner.peak-rate must be a number: got '1e'"),
    ("--inner.sizes 1 b", "--inner.sizes must be a whole number: got 'b'"),
    ("--inner.kind fancier", "--inner.kind must be one of plain, fancy: got 'fancier'; did you mean fancy?"),
    ("--order middle", "--order must be one of first, last, as_given: got 'middle'"),
    ("--fast=yes", "--fast must be true or false: got 'yes'"),
    ("--fast true", "true: is no flag and the value of none: flags begin with --"),
    ("--inner.sizes=1 2", "2: is no flag and the value of none"),
    ("-fast", "-fast: is no flag .*did you mean --fast?"),
    ("--inner.kinds fancy", "--inner.kinds: no such flag: did you mean --inner.kind?"),
    ("--strict", "--strict: no such flag: did you mean --inner.strict?"),
    ("--no-name", "--no-name: no such flag: did you mean --name?"),
    ("--fast --no-fast", "--fast: given twice, as --fast and again as --no-fast: give it once"),
    ("--pr 1 --inner.peak-rate 2", "--inner.peak-rate: given twice, as --pr and again as --inner.peak-rate"),
    ("--pr -1", "inner.peak_rate must be positive: got -1.0"),
    ("--inner 3", "--inner: no such flag"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_a_wrong_word_is_one_line_with_flag_constraint_and_what_came(words, message):
    with pytest.raises(UsageError, match=message.replace("?", r"\?")) as raised:
        parsed(*words.split(" "))
    assert "\n" not in str(raised.value)


def test_values_given_by_place_and_required_flags():
    assert parse_words(Placed, "command", "", ["a", "--size", "3", "b"]) == Placed("a", Path("b"), 3)
    for words, message in [
        (["a"], "OUT and --size must be given"),
        (["a", "b", "c"], "c: is no flag and the value of none"),
        (["--source", "a"], "--source: no such flag"),
    ]:
        with pytest.raises(UsageError, match=message):
            parse_words(Placed, "command", "", words)


JSON = [
    ({"count": 3, "inner": {"peak_rate": 1, "sizes": [], "strict": False}}, None),
    ({"inner": {"peak_rate": "inf"}}, None),
    ({"count": None, "widths": [1, 2.5], "inner": {}}, None),
    ({"count": True}, "count must be a whole number: got True"),
    ({"count": 3.0}, "count must be a whole number: got 3.0"),
    ({"name": 3}, "name must be text: got 3"),
    ({"name": None}, "name must be text: got None"),
    ({"fast": 1}, "fast must be true or false: got 1"),
    ({"inner": {"sizes": 3}}, "inner.sizes must be a list: got '3'"),
    ({"inner": {"sizes": ["a"]}}, "inner.sizes must be a whole number: got 'a'"),
    ({"inner": {"peak_rate": 10**400}}, "inner.peak_rate must be a number: got 1000"),
    ({"inner": {"kind": ["plain"]}}, "inner.kind must be one of plain, fancy"),
    ({"inner": {"lindkind": 1}}, "inner.lindkind: no such field: did you mean inner.kind?"),
    ({"inner": 3}, "inner must be an object of fields: got 3"),
    ({"count": {}}, "count must be one value: got {}"),
]


@pytest.mark.parametrize(("values", "message"), JSON)
def test_json_is_read_by_the_same_converters(values, message):
    if message is None:
        found = decode(values, options(Outer))
        assert found == {
            name: tuple(v) if isinstance(v, list) else float(v) if v == "inf" else v for name, v in flat(values).items()
        }
        return
    with pytest.raises(UsageError, match=message.replace("?", r"\?").replace("{", r"\{")):
        decode(values, options(Outer))


def test_the_fields_that_may_change_at_a_resumption_are_marked_beside_their_defaults():
    assert free(Outer) == {"name"}
    words = """run_dir config log_every sample_every eval_every checkpoint_every keep keep_best strict dry_run compile_for
        print_groups wandb profile compile_cache accumulate mesh coordinator num_processes process_id max_skips
        data.root data.timeout"""
    for config in (gpt.Config, maskgit.Config):
        assert set(words.split()) <= free(config)
        assert not {"preset", "seed", "steps", "batch_size", "precision", "data.name"} & free(config)
        assert not any(name.startswith(("optim.", "ema.", "model.", "decode.")) for name in free(config))
    assert {"data.threads", "data.workers"} <= free(maskgit.Config)
    assert moving(diffusion.Config) == {"autoencoder", "teacher"} < free(diffusion.Config)


def older(name):
    """A config.json of a version that had no such field."""
    values = to_dict(maskgit.PRESETS["digits"])
    part = values
    for step in name.split(".")[:-1]:
        part = part[step]
    del part[name.split(".")[-1]]
    return values


@pytest.mark.parametrize("name", ["precision", "optim.cooldown", "decode"])
def test_a_run_of_a_version_without_a_field_loads_and_resumes_with_its_default(name, tmp_path):
    values = older(name)
    config = from_dict(maskgit.Config, values, "config.json")
    default = maskgit.Config()
    for part in name.split("."):
        config, default = getattr(config, part), getattr(default, part)
    assert config == default
    (tmp_path / "config.json").write_text(json.dumps({"recipe": "maskgit", "config": values, "facts": {}}))
    same = from_dict(maskgit.Config, values | {"run_dir": str(tmp_path)}, "config.json")
    with RunFolder.open(same, "maskgit") as run:
        assert run.path == tmp_path
    other = dataclasses.replace(same, precision="bfloat16")
    with pytest.raises(UserError, match="--precision was auto and is bfloat16"), RunFolder.open(other, "maskgit"):
        pass


def test_frozen_parts_may_move_and_may_not_change(tmp_path, capsys):
    config = lambda where: dataclasses.replace(
        diffusion.PRESETS["digits"], run_dir=str(tmp_path), autoencoder=where, log_every=len(where)
    )
    with RunFolder.open(config("old"), "diffusion") as run:
        run.describe({}, frozen="ab")
    with RunFolder.open(config("new place"), "diffusion") as run:
        with pytest.raises(UserError, match=r"holds a run with other frozen parts \(SHA-256 ab and not cd\)"):
            run.describe({}, frozen="cd")
        run.describe({}, frozen="ab")
    assert "its frozen parts have moved: autoencoder is new place\n" in capsys.readouterr().out
    kept = json.loads((tmp_path / "config.json").read_text())
    assert (kept["config"]["autoencoder"], kept["config"]["log_every"], kept["frozen"]) == ("new place", 3, "ab")
    assert run.record == kept


def test_an_unknown_field_of_a_config_is_an_error_that_names_it():
    values = to_dict(maskgit.PRESETS["digits"])
    values["optim"]["momentums"] = 0.9
    with pytest.raises(
        UserError, match=r"config.json: this is not a config of train.maskgit: optim.momentums: no such"
    ):
        from_dict(maskgit.Config, values, "config.json")


def test_a_longer_warm_up_is_cut_where_the_preset_or_the_file_has_it_and_refused_as_a_flag(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"recipe": "maskgit", "config": to_dict(maskgit.PRESETS["digits"])}))
    read = lambda *words: parse("maskgit", maskgit.Config, maskgit.PRESETS, "", words)
    for given in ([], ["--config", str(path)]):
        assert read(*given, "--steps", "10").optim.warmup == maskgit.PRESETS["digits"].optim.warmup > 10
    with pytest.raises(
        UsageError, match=r"--optim.warmup must be at most the steps of the run: got 50 with --steps 10"
    ):
        read("--steps", "10", "--optim.warmup", "50")
