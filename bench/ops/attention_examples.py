"""Values and every gradient of many random attention problems against float64 NumPy.

    JAX_PLATFORMS=cpu python -m bench.ops.attention_examples 1000

The test is `tests/kernels/test_attention_drawn.py`, with more examples and more programs. The report is written to
bench/results/cpu/attention_examples.json.
"""

import json
import os
import re
import subprocess
import sys
import time

from bench.machine import RESULTS, about

REPORT = RESULTS / "cpu" / "attention_examples.json"
TEST = "tests/kernels/test_attention_drawn.py"


def run(examples: int) -> dict[str, object]:
    """Examples that passed and failed in a process of their own, and seconds."""
    options = ["-n", "0", "-q", "-k", "drawn_problems", "--timeout=7200", "--hypothesis-show-statistics"]
    line, start = [sys.executable, "-m", "pytest", TEST, *options], time.perf_counter()
    env = os.environ | {"EQXGEN_HYPOTHESIS_EXAMPLES": str(examples)}
    done = subprocess.run(line, cwd=RESULTS.parents[1], env=env, capture_output=True, text=True, check=False)
    count = lambda kind: sum(int(n) for n in re.findall(rf"(\d+) {kind}[ ,]", done.stdout))
    return {
        "command": f"EQXGEN_HYPOTHESIS_EXAMPLES={examples} python -m pytest {TEST} -k drawn_problems",
        "asked": examples,
        "passed": count("passing"),
        "failed": count("failing"),
        "seconds": round(time.perf_counter() - start),
        "exit status": done.returncode,
        "failure": "" if done.returncode == 0 else done.stdout[-3000:],
    }


if __name__ == "__main__":
    row = run(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    REPORT.write_text(json.dumps(row | about(), indent=2) + "\n", encoding="utf-8")
    print(REPORT.read_text(encoding="utf-8"))
    sys.exit(int(row["exit status"] != 0))
