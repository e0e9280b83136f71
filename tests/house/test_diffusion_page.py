"""The blocks of docs/diffusion.md run from top to bottom, and give what the page says."""

import numpy as np

from tests.house.pages import run_blocks


def test_the_blocks_run_from_top_to_bottom(tmp_path):
    found = run_blocks("diffusion", tmp_path)
    np.testing.assert_allclose(found["x"], found["plain_x"], atol=1e-5)
    np.testing.assert_allclose(found["v"], found["plain_v"], atol=1e-5)
    np.testing.assert_allclose(found["back"], found["x0"], atol=1e-5)
    np.testing.assert_allclose(found["loss"], found["velocity_error"], rtol=1e-4)
    samples = np.asarray(found["drawn"].x)
    np.testing.assert_allclose([samples.mean(), samples.std()], [found["MEAN"], found["DEVIATION"]], atol=0.02)
    assert np.asarray(found["drawn"].evaluations).max() < 40
    picture, painted, again = (np.asarray(found[name]) for name in ("picture", "painted", "again"))
    np.testing.assert_array_equal(painted[:4], picture[:4])
    assert (painted[4:] != picture[4:]).all()
    assert np.sqrt(np.mean((again - picture) ** 2)) < 0.05 < np.std(picture) / 4
    assert np.isfinite(np.asarray(found["edited"])).all()
    means = np.asarray(found["enlarged"]).reshape(4, 2, 4, 2, 1).mean((1, 3))
    np.testing.assert_allclose(means, found["small"], atol=1e-5)
    few = np.asarray(found["one_step"])
    np.testing.assert_allclose([few.mean(), few.std()], [found["MEAN"], found["DEVIATION"]], atol=0.02)
    assert np.isfinite(found["at_once"]).all()
    bits = found["bits"]
    np.testing.assert_allclose(bits.total, bits.prior + bits.steps.sum(), rtol=1e-5)
