"""The blocks of docs/gan.md run from top to bottom."""

import numpy as np

from tests.full import full
from tests.house.pages import run_blocks


@full
def test_the_blocks_run_from_top_to_bottom(tmp_path):
    found = run_blocks("gan", tmp_path)
    assert found["losses"].shape == (4,)
    assert found["styles"].shape == (4, 16)
    np.testing.assert_allclose(found["same"], found["reals"][0], atol=1e-5)
