"""The block of docs/segmentation.md runs, and its table names every preset with its steps."""

from tests.house.pages import check_rows, run_blocks
from train import segment


def test_the_block_runs(tmp_path):
    found = run_blocks("segmentation", tmp_path)
    assert found["losses"].shape == (2,)
    assert found["image"].shape == (16, 24, 4)


def test_the_table_has_every_preset_with_its_steps_and_batch():
    check_rows("segmentation", segment.PRESETS)
