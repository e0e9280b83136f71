"""Files of means and covariances: written, read, and refused in one line."""

import warnings

import numpy as np
import pytest

from eqxgen.metrics import FeatureRows, Features, Moments, Statistics, frechet, read_statistics, write_statistics

ROWS = np.random.default_rng(0).normal(size=(50, 4))
MEAN, COVARIANCE = ROWS.mean(axis=0), np.cov(ROWS, rowvar=False)
JUDGE = Features("judge", "ab" * 32)


def test_statistics_come_back_to_the_bit_with_their_features(tmp_path):
    path = tmp_path / "real.npz"
    write_statistics(path, Statistics(MEAN, COVARIANCE, 50, JUDGE))
    back = read_statistics(path)
    np.testing.assert_array_equal(back.mean, MEAN)
    np.testing.assert_allclose(back.covariance, COVARIANCE, rtol=1e-15)
    assert (back.rows, back.features) == (50, JUDGE)
    score = frechet(FeatureRows(features=JUDGE).update(ROWS + 1), back)
    assert score.value == pytest.approx(4, rel=1e-12)
    assert score.name == "fd_judge"
    with np.load(path, allow_pickle=False) as file:  # as pytorch-fid reads it
        assert file["mu"].shape == (4,)
        assert file["sigma"].shape == (4, 4)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_of_another_tool_takes_the_features_it_is_told(tmp_path, save):
    path = tmp_path / "fid.npz"
    save(path, mu=MEAN, sigma=COVARIANCE.astype(np.float32))
    found = read_statistics(path, Features("inception"))
    assert (found.rows, found.features.name, found.shortfall()) == (0, "inception", "")
    one = Moments().update(ROWS)
    with warnings.catch_warnings(action="error"):
        assert frechet(found, Statistics(one.mean, one.covariance(), 50, Features("inception"))).value < 1e-6


SKEW = COVARIANCE + np.triu(np.ones((4, 4)), 1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": MEAN}, "must have the arrays mu and sigma: sigma is missing"),
        ({"mu": MEAN[:3], "sigma": COVARIANCE}, r"mu and sigma must be \(d,\) and \(d, d\): got \(3,\) and \(4, 4\)"),
        ({"mu": MEAN[None], "sigma": COVARIANCE}, r"got \(1, 4\) and \(4, 4\)"),
        ({"mu": MEAN, "sigma": SKEW}, "sigma must be a covariance, symmetric with a diagonal of at least 0: off by 1"),
        ({"mu": MEAN, "sigma": -COVARIANCE}, "sigma must be a covariance"),
        ({"mu": MEAN * np.nan, "sigma": COVARIANCE}, "mu must be finite real numbers"),
        ({"mu": MEAN + 1j, "sigma": COVARIANCE}, "mu must be finite real numbers: got complex128"),
        ({"mu": MEAN, "sigma": COVARIANCE, "num": np.ones(2)}, "num must be one integer of at least 0"),
        ({"mu": MEAN, "sigma": COVARIANCE, "features": np.ones(2)}, "features must be one text"),
        ({"mu": MEAN, "sigma": COVARIANCE, "features": np.asarray("vgg")}, "both sets must have the same features"),
        ({"mu": np.array([None, 1], object), "sigma": COVARIANCE}, "an array of Python objects, which is not read"),
    ],
)
def test_statistics_that_cannot_be_are_one_line(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        read_statistics(tmp_path / "x.npz", JUDGE)
    assert "\n" not in str(error.value)


def test_files_that_are_no_archives_or_damaged_are_one_line(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"must be an \.npz archive with mu and sigma"):
        read_statistics(path)
    np.savez(path, mu=MEAN, sigma=COVARIANCE)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"(4, 4)", b"(9, 9)"))
    with pytest.raises(ValueError, match=r"sigma (must have the size of its header|cannot be read)"):
        read_statistics(path)
    with pytest.raises(ValueError, match=r"path must end in \.npz: got x\.pkl"):
        write_statistics(tmp_path / "x.pkl", Statistics(MEAN, COVARIANCE))
