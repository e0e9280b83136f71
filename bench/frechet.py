"""Time and memory of a Fréchet distance of 50,000 rows of 2,048 features in one pass, in batches.

  python -m bench.frechet                 writes bench/results/cpu/frechet.json
  python -m bench.frechet --rows 5000     without writing

At most 60 s and 2 GB on two CPU cores are the budget. Features are drawn batch by batch outside the clock, which
is of the moments and the distance alone.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np

from eqxgen.metrics import Moments, frechet_distance

ROWS, DIM, BATCH = 50_000, 2048, 500
RESULT = Path(__file__).parent / "results" / "cpu" / "frechet.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    rows = parser.parse_args().rows
    rng = np.random.default_rng(0)
    draw = lambda: rng.standard_normal((BATCH, DIM), np.float32)
    reference, moments, passed, cpu = Moments(), Moments(), 0.0, 0.0
    for _ in range(0, max(rows // 10, 2 * DIM), BATCH):
        reference = reference.update(draw())
    for _ in range(0, rows, BATCH):
        batch, began, own = draw(), time.perf_counter(), time.process_time()
        moments = moments.update(batch)
        passed, cpu = passed + time.perf_counter() - began, cpu + time.process_time() - own
    began, own = time.perf_counter(), time.process_time()
    value = frechet_distance(moments, reference)
    last, cpu = time.perf_counter() - began, cpu + time.process_time() - own
    found = {
        "rows": rows,
        "features": DIM,
        "batch": BATCH,
        "seconds": round(passed + last, 2),
        "seconds_moments": round(passed, 2),
        "seconds_distance": round(last, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        "value": value,
        "numpy": np.__version__,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(found, indent=2))
    if rows == ROWS:
        RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
