"""The block of docs/clip.md runs, and its table names every preset with its steps."""

from tests.house.pages import check_rows, run_blocks
from train import clip


def test_the_block_runs(tmp_path):
    found = run_blocks("clip", tmp_path)
    assert (found["losses"].shape, found["pairs"].shape, found["logits"].shape) == ((4,), (4,), (4, 4))


def test_the_table_has_every_preset_with_its_steps_and_batch():
    check_rows("clip", clip.PRESETS)
