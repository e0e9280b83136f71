"""Pages of docs/ in tests: the blocks of Python that run, and the table of a recipe's presets."""

import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.house.layout import CHECKOUT


def run_blocks(name: str, folder: Path) -> dict[str, Any]:
    """The names that the blocks of docs/`name`.md leave, one after another in one program in a folder."""
    page = (CHECKOUT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    path = folder / f"{name}.py"
    path.write_text("\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)), encoding="utf-8")
    return runpy.run_path(str(path))


def check_rows(name: str, presets: Mapping[str, Any]) -> None:
    """Every preset has a row in docs/`name`.md with its steps and its batch."""
    page = (CHECKOUT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for preset, config in presets.items():
        row = re.search(rf"^\| {re.escape(preset)} \|.*$", page, re.MULTILINE)
        assert row, f"docs/{name}.md has no row of {preset}"
        assert f"| {config.steps:,} x {config.batch_size:,} |" in row[0], f"{preset}: {config.steps:,} steps"
