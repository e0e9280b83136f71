"""Memory that a step frees is there for the next one."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from train.engine.host_memory import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
thread = ThreadPoolExecutor(1)  # as XLA's, which has a heap of its own
make = lambda: thread.submit(lambda: np.ones(1 << 24).sum()).result()
make()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    make()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **env: str) -> tuple[str, int]:
    """Result of `keep_freed_memory`, and the page faults of making and dropping four arrays of 128 MiB."""
    line = [sys.executable, "-c", FAULTS, how]
    kept, count = subprocess.run(line, env=env, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    return kept, int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it changes nothing but on Linux")
def test_freed_memory_is_kept_for_the_next_step():
    kept, count = faults("keep")
    if kept == "False":
        pytest.skip("this C library has no mallopt")
    plain = faults("plain")[1]
    assert kept == "True"
    assert count * 10 < plain


@pytest.mark.parametrize("env", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}])
def test_an_allocator_that_the_environment_sets_is_left_alone(env):
    assert faults("keep", **env)[0] == "False"
