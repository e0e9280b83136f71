"""Time and memory of a Fréchet distance of 50,000 rows of 2,048 features in one pass, in batches.

  python -m bench.frechet                 writes bench/results/cpu/frechet.json
  python -m bench.frechet --rows 5000     without writing

At most 60 s and 2 GB on two CPU cores are the budget. Features are drawn beforehand, a batch that is used again and
again with another shift, so that the time is of the moments and the distance alone.
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
    batch = rng.normal(size=(4 * BATCH, DIM)).astype(np.float32)
    reference = Moments().update(np.concatenate([batch, rng.normal(size=(BATCH, DIM)).astype(np.float32)]))
    began, moments = time.perf_counter(), Moments()
    for start in range(0, rows, BATCH):
        moments = moments.update(batch[start % (3 * BATCH) :][:BATCH] + np.float32(start / rows))
    passed = time.perf_counter()
    value = frechet_distance(moments, reference)
    done = time.perf_counter()
    found = {
        "rows": rows,
        "features": DIM,
        "batch": BATCH,
        "seconds": round(done - began, 2),
        "seconds_moments": round(passed - began, 2),
        "seconds_distance": round(done - passed, 2),
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
