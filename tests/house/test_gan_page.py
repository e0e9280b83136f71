"""The blocks of docs/gan.md run from top to bottom."""

import re
import runpy

import numpy as np

from tests.house.layout import CHECKOUT

PAGE = (CHECKOUT / "docs" / "gan.md").read_text(encoding="utf-8")


def test_the_blocks_run_from_top_to_bottom(tmp_path):
    path = tmp_path / "gan.py"
    path.write_text("\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)), encoding="utf-8")
    found = runpy.run_path(str(path))
    assert found["losses"].shape == (4,)
    assert found["styles"].shape == (4, 16)
    np.testing.assert_allclose(found["same"], found["reals"][0], atol=1e-5)
