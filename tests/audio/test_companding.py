"""Mu-law against librosa's answers, levels, and resampling against SciPy's."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import resample_poly

from eqxgen.audio import from_levels, mu_law_compress, mu_law_expand, resample, to_levels
from tests import oracles
from tests.arrays import drawn

KEPT = oracles.load("sound")["mu_law"]


def test_mu_law_is_librosas_and_its_own_inverse():
    x = jnp.asarray(KEPT["x"], jnp.float32)
    np.testing.assert_allclose(mu_law_compress(x), KEPT["compressed"], rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(mu_law_expand(x), KEPT["expanded"], rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(mu_law_expand(mu_law_compress(x)), KEPT["x"], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(("bits", "mu"), [(8, 255), (16, 0), (5, 31)])
def test_every_level_is_the_level_of_its_sample(bits, mu):
    levels = np.arange(2**bits, dtype=np.int32)
    wave = from_levels(jnp.asarray(levels), bits, mu)
    np.testing.assert_array_equal(to_levels(wave, bits, mu), levels)
    assert float(wave[0]) == -1.0
    assert float(wave[-1]) == pytest.approx(1.0)
    np.testing.assert_array_equal(to_levels(jnp.asarray([-3.0, 0.0, 3.0]), bits, mu), [0, 2 ** (bits - 1), 2**bits - 1])


@pytest.mark.parametrize(("rate", "new_rate"), [(16000, 8000), (8000, 22050), (44100, 8000), (8000, 8000)])
def test_resampling_is_scipys(rate, new_rate):
    wave = drawn((371,))
    common = np.gcd(rate, new_rate)
    theirs = resample_poly(np.asarray(wave, np.float64), new_rate // common, rate // common)
    np.testing.assert_allclose(resample(wave, rate, new_rate), theirs, atol=3e-6)


def test_a_wrong_argument_is_named(unchecked):
    with pytest.raises(ValueError, match=r"bits must be in \[1, 16\]: got 17"):
        to_levels(jnp.zeros(3), 17)
    with pytest.raises(ValueError, match="new_rate must be an integer of at least 1: got 0"):
        resample(jnp.zeros(3), 8000, 0)
    with pytest.raises(ValueError, match="wave must have one sample or more: got none"):
        resample(jnp.zeros(0), 8000, 16000)
    for call in (lambda x: to_levels(x, 8), mu_law_compress, lambda x: resample(x, 8000, 16000)):
        with pytest.raises(ValueError, match="wave must be of a floating-point type: got int16"):
            call(jnp.zeros(3, jnp.int16))
    with pytest.raises(ValueError, match="levels must be integers: got float32"):
        from_levels(jnp.zeros(3), 8)
    with pytest.raises(ValueError, match=r"levels must be in \[0, 2\*\*bits=256\): got values from 0 to 256"):
        from_levels(jnp.asarray([0, 256]), 8)
