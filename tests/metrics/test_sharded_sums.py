"""Sums over the axes of a mesh inside a step give each stream the number of one device."""

import numpy as np

from eqxgen import metrics
from tests.devices import printed

ON_THE_HOST = {"EditRate", "Recall"}
"""Streams of counts, which no compiled step sums."""


def test_sums_over_a_mesh_give_each_stream_the_number_of_one_device():
    found = printed("tests.metrics.sharded_sums", timeout=100)
    streams = {name for name in metrics.__all__ if hasattr(getattr(metrics, name), "merge")} - ON_THE_HOST
    assert found["numbers"].keys() == streams
    for name, (sharded, whole) in found["numbers"].items():
        np.testing.assert_allclose(sharded, whole, rtol=3e-6, atol=1e-6 * np.abs(whole).max(), err_msg=name)
    assert found["bad"]
