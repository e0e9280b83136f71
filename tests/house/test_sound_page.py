"""The block of docs/sound.md runs, and its table names every preset with its steps."""

import re
import runpy

from tests.house.layout import CHECKOUT
from train import wavegru

PAGE = (CHECKOUT / "docs" / "sound.md").read_text(encoding="utf-8")


def test_the_block_runs(tmp_path):
    path = tmp_path / "sound.py"
    path.write_text("\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)), encoding="utf-8")
    found = runpy.run_path(str(path))
    assert found["losses"].shape == (160,)
    assert found["drawn"].shape == (1, 200)


def test_the_table_has_every_preset_with_its_steps_and_batch():
    for name, preset in wavegru.PRESETS.items():
        row = re.search(rf"^\| {re.escape(name)} \|.*$", PAGE, re.MULTILINE)
        assert row, f"docs/sound.md has no row of {name}"
        assert f"| {preset.steps:,} x {preset.batch_size:,} |" in row[0], f"{name}: {preset.steps:,} steps"
