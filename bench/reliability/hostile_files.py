"""Damaged files of weights read under a limit of memory: 5,000 of each format, changed at random.

  python -m bench.reliability.hostile_files             writes bench/results/cpu/reliability/hostile_files.json
  python -m bench.reliability.hostile_files --n 100     without writing

The process may map 64 MiB more than after its imports (RLIMIT_AS), so that a length out of a file's header that is
believed is a MemoryError, which ends the run. Every file gives its arrays or a ValueError of one line.
"""

import argparse
import collections
import itertools
import json
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eqxgen.pretrained.formats import open_file
from tests.pretrained.test_hostile_files import CHANGES, WHOLE, old

RESULT = Path(__file__).parents[1] / "results" / "cpu" / "reliability" / "hostile_files.json"
COUNT, ROOM = 5000, 64 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=COUNT)
    count = parser.parse_args().n
    warnings.simplefilter("ignore")  # of the module zipfile, for names that are there twice
    kinds = {**WHOLE, "old.pt": old}
    with tempfile.TemporaryDirectory() as folder:
        for kind, make in kinds.items():  # what the first file imports is no part of the measurement
            read(Path(folder) / f"file.{kind}", make)
        limit = mapped() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        before = resident()
        try:
            bytearray(2 * ROOM)
        except MemoryError:
            pass
        else:
            raise RuntimeError("the limit of memory does not hold")
        found = {kind: fuzzed(Path(folder) / f"file.{kind}", make, count) for kind, make in kinds.items()}
    result = {
        "files_of_each_format": count,
        "limit_mapped_mib": round(limit / 2**20, 1),
        "room_mib": ROOM // 2**20,
        "peak_resident_grew_mib": round((resident() - before) / 2**20, 2),
        "formats": found,
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result, indent=2))
    if count == COUNT:
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def read(path: Path, make: Callable[[Path], object]) -> bytes:
    """An undamaged file, read once."""
    make(path)
    for stored in open_file(path).values():
        stored.read(...)
    return path.read_bytes()


def fuzzed(path: Path, make: Callable[[Path], object], count: int) -> dict[str, Any]:
    """How many files gave arrays and how many an error of one line, and the CPU seconds of the slowest."""
    whole, rng, outcomes, slowest = read(path, make), np.random.default_rng(1), collections.Counter(), 0.0
    for _, change in zip(range(count), itertools.cycle(CHANGES.values())):
        path.write_bytes(change(rng, whole))
        began = time.process_time()
        try:
            for stored in open_file(path).values():
                assert np.asarray(stored.read(...)).shape == stored.shape
            outcomes["arrays"] += 1
        except ValueError as error:
            if path.name not in str(error) or not str(error).isprintable():
                raise RuntimeError(f"not a line with the file's name: {error}") from error
            outcomes["one line"] += 1
        slowest = max(slowest, time.process_time() - began)
    return {**outcomes, "slowest_cpu_seconds": round(slowest, 4), "peak_resident_mib": round(resident() / 2**20, 1)}


def mapped() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def resident() -> int:
    """The largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
