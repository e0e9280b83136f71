"""The kept answers of published implementations are what those implementations still answer, where they are
installed.
"""

import importlib
import warnings

import jax
import numpy as np
import pytest

from tests import oracles
from tests.oracles.__main__ import subjects


@pytest.mark.parametrize("subject", subjects())
def test_a_kept_answer_is_what_the_library_gives(subject):
    try:
        with warnings.catch_warnings(), oracles.alone(), jax.numpy_rank_promotion("allow"):
            warnings.simplefilter("ignore")  # of the published code
            module = importlib.import_module(f"tests.oracles.{subject}")
            found = module.cases()
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed here; `nox -s parity` installs it")
    except FileNotFoundError as error:
        pytest.skip(f"{error.filename} is not here; set EQXGEN_DATA to the folder of the data sets")
    kept = oracles.load(subject)
    assert {case: set(parts) for case, parts in found.items()} == {case: set(parts) for case, parts in kept.items()}
    for case, parts in found.items():
        for name, array in parts.items():
            if (case, name) in getattr(module, "VARYING", ()):
                continue
            array = np.asarray(array)
            if array.dtype.kind == "f":
                scale = np.max(np.abs(kept[case][name]), initial=1, where=np.isfinite(kept[case][name]))
                np.testing.assert_allclose(
                    array, kept[case][name], rtol=1e-5, atol=1e-6 * scale, err_msg=f"{case}: {name}"
                )
            else:
                np.testing.assert_array_equal(array, kept[case][name], err_msg=f"{case}: {name}")
