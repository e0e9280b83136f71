"""Bad flags, configs, data files and checkpoints end in one line that names them, before anything is compiled."""

import re

import pytest

from tests.train import bad_checkpoints, bad_classes, bad_config, bad_data, bad_pairs, bad_sounds, bad_start, bad_texts
from tests.train.bad_input import KEYS, Case, compiled, status_of

CASES: list[Case] = [
    *bad_config.CASES,
    *bad_checkpoints.CASES,
    *bad_data.CASES,
    *bad_start.CASES,
    *bad_classes.CASES,
    *bad_pairs.CASES,
    *bad_sounds.CASES,
    *bad_texts.CASES,
]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.number}: {case.what}" for case in CASES])
def test_a_bad_input_is_one_line_of_error_before_anything_is_compiled(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = case.prepare(tmp_path)
    compiled.clear()
    status = status_of(line)
    errors = capsys.readouterr().err
    assert status == case.status, errors
    said = [text for text in errors.splitlines() if text.startswith("error: ")]
    assert len(said) == 1, errors
    assert re.search(case.says, said[0]), said[0]
    assert "Traceback" not in errors
    # A checkpoint is held against the model, whose size the number of the data's tokens decides.
    tokens = {"jit(apply)"} if case.number == 95 or case.number >= 114 else set()
    assert set(compiled) <= KEYS | tokens
