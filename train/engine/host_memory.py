"""The memory of a process that computes on its CPU."""

import ctypes
import os
import sys

# Of mallopt(3): how many blocks may be mapped one by one, how much may be free at the heap's end before it is given
# back, and how many heaps there are.
M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX = -4, -1, -8


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed for the next step; gives whether it does.

    XLA asks for a program's memory anew at each of its runs. By default glibc maps so large a block for it and gives it
    back after the run, and the kernel fills every page of it with zeros again: up to a quarter of a small model's step.
    It does so with every block that the heap of a thread, of 64 MB, cannot hold, so that all threads share one heap: to
    be called before there are others. The process then stays as large as it was at most. Where the environment sets the
    allocator (`MALLOC_...`, `GLIBC_TUNABLES`), nothing is changed; nor but on Linux.
    """
    if not sys.platform.startswith("linux") or any(
        name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ
    ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    done = [mallopt(*pair) for pair in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_ARENA_MAX, 1))]
    return done == [1, 1, 1]
