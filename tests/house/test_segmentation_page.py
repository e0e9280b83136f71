"""The block of docs/segmentation.md runs, and its table names every preset with its steps."""

import re
import runpy

from tests.house.layout import CHECKOUT
from train import segment

PAGE = (CHECKOUT / "docs" / "segmentation.md").read_text(encoding="utf-8")


def test_the_block_runs(tmp_path):
    path = tmp_path / "segmentation.py"
    path.write_text("\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)), encoding="utf-8")
    found = runpy.run_path(str(path))
    assert found["losses"].shape == (2,)
    assert found["image"].shape == (16, 24, 4)


def test_the_table_has_every_preset_with_its_steps_and_batch():
    for name, preset in segment.PRESETS.items():
        row = re.search(rf"^\| {re.escape(name)} \|.*$", PAGE, re.MULTILINE)
        assert row, f"docs/segmentation.md has no row of {name}"
        assert f"| {preset.steps:,} x {preset.batch_size:,} |" in row[0], f"{name}: {preset.steps:,} steps"
