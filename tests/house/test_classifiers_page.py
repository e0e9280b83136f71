"""The block of docs/classifiers.md runs, and its table names every preset with its steps."""

from tests.house.pages import check_rows, run_blocks
from train import classify


def test_the_block_runs(tmp_path):
    found = run_blocks("classifiers", tmp_path)
    assert found["losses"].shape == (6,)
    assert found["maps"].shape == (2, 2, 4, 4)


def test_the_table_has_every_preset_with_its_steps_and_batch():
    check_rows("classifiers", classify.PRESETS)
