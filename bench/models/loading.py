"""Loading of published weights: 498 MB of GPT-2 in one safetensors file, against `safetensors.numpy.load_file`.

  python -m bench.models.loading --folder NEW --out bench/results/cpu/loading.json

Each contender runs in a process of its own, in rounds: seconds from the call to the last array, seconds of
the processor, which a busy machine changes less, and the growth of the process's peak memory, which counts mapped
pages of the file.
"""

import argparse
import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.machine import versions

ROUNDS = 3
THEIRS, ARRAYS, MODEL, CONVERTED = "load_file", "arrays", "model", "convert"
CONTENDERS = (THEIRS, ARRAYS, MODEL, CONVERTED)


def write(folder: Path) -> None:
    """GPT-2 of 124 M parameters with drawn weights."""
    import equinox as eqx
    import jax
    import jax.random as jr
    import numpy as np

    from eqxgen.configs import GPTConfig
    from eqxgen.models import GPT
    from eqxgen.pretrained.gpt2 import to_pretrained

    model = eqx.filter_eval_shape(lambda key: GPT(50257, GPTConfig.gpt2(), key=key), jr.key(0))
    rng = np.random.default_rng(0)
    drawn = lambda leaf: rng.standard_normal(leaf.shape, np.float32) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
    to_pretrained(jax.tree.map(drawn, model), folder)


def load(name: str, folder: Path) -> Any:
    """The weights by one of the contenders."""
    import equinox as eqx
    import jax

    from eqxgen.pretrained import gpt2
    from eqxgen.pretrained.formats import open_file
    from eqxgen.pretrained.table import filled

    path = folder / "model.safetensors"
    if name == THEIRS:
        from safetensors.numpy import load_file

        return load_file(path)
    if name == MODEL:
        return jax.block_until_ready(jax.tree.leaves(eqx.filter(gpt2.from_pretrained(folder), eqx.is_array)))
    if name == CONVERTED:
        from train import convert

        with tempfile.TemporaryDirectory(dir=folder.parent) as target, contextlib.redirect_stdout(io.StringIO()):
            return convert.main(convert.Config(source=str(folder), target=target, parity=False))
    arrays = dict(sorted(open_file(path).items()))
    return jax.block_until_ready(filled({k: jax.ShapeDtypeStruct(a.shape, a.dtype) for k, a in arrays.items()}, arrays))


def measured(name: str, folder: Path) -> dict[str, float]:
    """Seconds and megabytes of one loading in this process."""
    import jax
    import numpy as np

    from eqxgen.pretrained import gpt2

    jax.device_put(np.zeros(3)).block_until_ready()
    gpt2.GPT2.open(folder)  # imports, and the trace of the model's shapes
    Path("/proc/self/clear_refs").write_text("5")
    before, start, busy = _memory("VmRSS"), time.perf_counter(), time.process_time()
    kept = load(name, folder)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    peak = _memory("VmHWM") - before
    del kept
    return {"seconds": seconds, "cpu_seconds": busy, "megabytes": peak}


def _memory(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(field))


def raced(folder: Path, run: Callable[[str], dict[str, float]]) -> dict[str, Any]:
    """Medians of the contenders, and of ours over theirs in the same round."""
    rounds = [{name: run(name) for name in CONTENDERS} for _ in range(ROUNDS)]
    found: dict[str, Any] = {}
    for name in CONTENDERS:
        for what in ("seconds", "cpu_seconds", "megabytes"):
            found[f"{name}_{what}"] = round(statistics.median(each[name][what] for each in rounds), 3)
            ratios = [each[name][what] / each[THEIRS][what] for each in rounds]
            found[f"{name}_{what}_over_{THEIRS}"] = round(statistics.median(ratios), 3)
    size = (folder / "model.safetensors").stat().st_size
    return {
        **found,
        "file_megabytes": round(size / 1e6, 1),
        "rounds": ROUNDS,
        "versions": versions(("jax", "safetensors")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=CONTENDERS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured(asked.one, asked.folder)))
        return
    if not asked.folder.exists():
        write(asked.folder)

    def run(name: str) -> dict[str, float]:
        line = [sys.executable, "-m", "bench.models.loading", "--folder", str(asked.folder), "--one", name]
        return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)

    found = raced(asked.folder, run)
    print(json.dumps(found, indent=2))
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
