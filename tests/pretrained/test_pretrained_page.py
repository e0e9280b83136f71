"""The blocks of docs/pretrained.md run, and its tables have a row for every format and family."""

import re
import runpy

import jax.numpy as jnp
import numpy as np

from eqxgen.pretrained import named
from eqxgen.pretrained.families import FAMILIES
from eqxgen.pretrained.formats import FORMATS
from tests.house.layout import CHECKOUT

PAGE = (CHECKOUT / "docs" / "pretrained.md").read_text(encoding="utf-8")


def test_the_blocks_run_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "page.py"
    path.write_text("\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)), encoding="utf-8")
    found = runpy.run_path(str(path))
    np.testing.assert_array_equal(found["again"].positions, found["gpt"].positions)
    assert found["half"].positions.dtype == jnp.bfloat16
    assert found["report"] == "28 arrays read"


def test_the_page_names_every_format_and_family():
    assert [ending for ending in FORMATS if f"`{ending}`" not in PAGE] == []
    for known in FAMILIES:
        types = ", ".join(known.types) or f'none: give `family="{known.module}"`'
        assert f"| `{known.module}` | {types} |" in PAGE, f"docs/pretrained.md has no row of {known}"
        assert set(known.types) <= set(named(known.module).types)
