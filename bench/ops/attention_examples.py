"""Values and every gradient of many drawn attention problems against float64 NumPy.

    JAX_PLATFORMS=cpu python -m bench.ops.attention_examples 1000

The test is `tests/kernels/test_attention_drawn.py`, with more examples and more programs. The report is written to
bench/results/cpu/attention_examples.json.
"""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "bench" / "results" / "cpu" / "attention_examples.json"
TEST = "tests/kernels/test_attention_drawn.py"


def run(examples: int) -> dict[str, object]:
    """Run the drawn test in a process of its own: examples that passed and failed, and seconds."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        TEST,
        "-n",
        "0",
        "-q",
        "-k",
        "drawn_problems",
        "--timeout=7200",
        "--hypothesis-show-statistics",
    ]
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"EQXGEN_HYPOTHESIS_EXAMPLES": str(examples)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    count = lambda kind: sum(int(n) for n in re.findall(rf"(\d+) {kind}[ ,]", done.stdout))
    return {
        "command": f"EQXGEN_HYPOTHESIS_EXAMPLES={examples} python -m pytest {TEST} -k drawn_problems",
        "asked": examples,
        "passed": count("passing"),
        "failed": count("failing"),
        "seconds": round(seconds),
        "exit status": done.returncode,
        "failure": "" if done.returncode == 0 else done.stdout[-3000:],
    }


def main() -> None:
    row = run(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    made = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "jax": version("jax"),
        "machine": platform.machine(),
    }
    REPORT.write_text(json.dumps(row | made, indent=2) + "\n", encoding="utf-8")
    print(REPORT.read_text(encoding="utf-8"))
    sys.exit(int(row["exit status"] != 0))


if __name__ == "__main__":
    main()
