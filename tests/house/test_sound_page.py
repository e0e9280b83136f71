"""The block of docs/sound.md runs, and its table names every preset with its steps."""

from tests.house.pages import check_rows, run_blocks
from train import wavegru


def test_the_block_runs(tmp_path):
    found = run_blocks("sound", tmp_path)
    assert found["losses"].shape == (160,)
    assert found["drawn"].shape == (1, 200)


def test_the_table_has_every_preset_with_its_steps_and_batch():
    check_rows("sound", wavegru.PRESETS)
