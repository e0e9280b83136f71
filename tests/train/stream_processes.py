"""Run by test_evaluators.py, one of two processes of two devices each: streams, their totals and a judge, printed as
JSON.
"""

import json
import sys

import jax
import jax.random as jr
import numpy as np

from eqxgen.metrics import Accuracy, Mean, Moments
from eqxgen.nn import MLP
from train.config.data import DataConfig
from train.data import load
from train.evaluators import judge
from train.evaluators.examples import Examples, held_out_images
from train.evaluators.stream import Stopped, Stream
from train.parallel import make_mesh, place
from train.parallel.processes import start


def main(port: str, number: int) -> None:
    start(f"localhost:{port}", 2, number)
    jax.config.update("jax_compilation_cache_dir", None)
    mesh = make_mesh("data=2,fsdp=2")
    asked = []
    stream = Stream(mesh, lambda: asked.append(0) or False, lambda text: None)
    model = place(MLP(64, hidden_dim=64, key=jr.key(0)), mesh)
    rows = np.random.default_rng(0).normal(size=(21, 64)).astype(np.float32)
    examples = Examples.of(8, x=rows)
    mean, moments, seen = Mean(), Moments(), []
    for values, index in stream.map(passed, model, examples):
        mean, moments = mean.update(values), moments.update(values)
        seen += index.tolist()
    mean, moments = stream.total(mean, moments)
    together, index = stream.gather(passed, model, examples)
    assert index.tolist() == list(range(21))
    assert len(asked) == 6
    assert 0 < len(seen) < 21
    np.testing.assert_allclose(mean.result(), np.mean(together, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(np.asarray(together, np.float64), rowvar=False), rtol=1e-9)
    tiny = stream.total(Accuracy().update(*(np.arange(3) * number,) * 2), Moments())  # the second has no row anywhere
    dataset = load(DataConfig(name="digits"))
    judge._plan = lambda dataset, name: {**plan(dataset, name), "steps": 12}
    first = judge.judge_of(dataset, stream)
    again = judge.judge_of(dataset, stream)
    assert again.accuracy == first.accuracy
    assert again.seconds == 0 < first.seconds
    found = judge.looked_at(first.model, held_out_images(dataset), Moments(), stream)[0]
    stopping = Stream(mesh, lambda: True)
    try:
        next(stopping.map(passed, model, examples))
        raise AssertionError("it went on")
    except Stopped:
        pass
    print(
        json.dumps(
            {
                "seen": seen,
                "mean": mean.result(),
                "together": together.sum().item(),
                "hits": tiny[0].hits.weight,
                "rows": int(tiny[1].rows),
                "accuracy": first.accuracy,
                "again": found.result(),
            }
        )
    )


plan = judge._plan


def passed(model, example):
    return model(example["x"]), example["index"]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
