"""Model state on several devices, and the memory of parameters in parts."""

import pytest

from tests.devices import printed
from tests.full import FULL
from tests.train.engine_devices import COMPARED

# XLA's CPU compiler merges equal gathers across JAX's barriers, and schedules for parallel threads, not for memory;
# compilers of GPUs and TPUs do neither.
AS_ELSEWHERE = "--xla_cpu_enable_concurrency_optimized_scheduler=false --xla_disable_hlo_passes=cse"


@pytest.fixture(scope="module")
def parity():
    return printed("tests.train.engine_devices", "parity", timeout=3000 if FULL else 280)


@pytest.mark.parametrize(("program", "mesh"), [(program, mesh) for program in COMPARED for mesh in COMPARED[program]])
def test_weights_state_and_their_averages_are_those_of_one_device(parity, program, mesh):
    assert parity[program][mesh] < 1e-9  # Adam divides by small numbers; other weights or statistics make 1e-3
    assert parity[program].get("state", 1) > 0, "without state that moves this shows nothing"


def test_parameters_of_any_model_are_put_together_level_by_level_in_both_passes():
    found = printed("tests.train.engine_devices", "memory", xla=AS_ELSEWHERE)
    assert found["data=8"] > found["parameters"]  # whole gradients
    assert found["fsdp=8"] < 0.5 * found["parameters"]
    assert found["gathers of fsdp=8"] > 12, "each of 12 kernels in the forward pass, and again in the backward pass"
    assert found["remat True"] < 0.65 * found["remat False"] < 2 * found["parameters"], (
        "blocks that are computed again keep their inputs alone"
    )
    assert found["read"] == 1 / 8, "a device reads its own part of the weights that a run starts from"
    # XLA may fuse the body of a loop otherwise: the last bits of float32 differ.
    assert max(found["scanned"].values()) < 1e-6, "several updates in one call are those of single steps"
