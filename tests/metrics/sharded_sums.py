"""Run by test_sharded_sums.py in a process of its own: states of streams on 8 virtual devices, printed as JSON."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from eqxgen import metrics
from eqxgen.metrics.sums import code_sums, confusion_sums, mean_sums, moment_sums

RNG = np.random.default_rng(0)
N = 8 * 29
VALUES = RNG.uniform(0.1, 1, N).astype(np.float32)
WEIGHTS = RNG.uniform(size=N).astype(np.float32)
LABELS, GUESSES = RNG.integers(0, 5, (2, N)).astype(np.int32)
FEATURES = (RNG.normal(size=(N, 5)) @ RNG.normal(size=(5, 5)) + 500).astype(np.float32)
PAIRS = FEATURES[:, :2]
Mean, Moments = metrics.Mean, metrics.Moments

# By stream: arrays of a batch, their sums within the step, the stream of the sums, that of the arrays, its number.
ROWS = {
    "Mean": ((VALUES, WEIGHTS), mean_sums, lambda s: Mean(*s), Mean().update, lambda m: m.result()),
    "Accuracy": (
        (GUESSES, LABELS),
        lambda a, b, axis: mean_sums(a == b, axis=axis),
        lambda s: metrics.Accuracy(Mean(*s)),
        metrics.Accuracy().update,
        lambda m: m.result(),
    ),
    "CrossEntropy": (
        (VALUES, WEIGHTS),
        mean_sums,
        lambda s: metrics.CrossEntropy(Mean(*s)),
        metrics.CrossEntropy().update,
        lambda m: m.perplexity(),
    ),
    "PSNR": (
        (VALUES,),
        lambda x, axis: (*mean_sums(metrics.psnr(x), axis=axis), *mean_sums(x, axis=axis)),
        lambda s: metrics.PSNR(Mean(*s[:2]), Mean(*s[2:])),
        metrics.PSNR().update,
        lambda m: (m.result(), m.error.result()),
    ),
    "SSIM": (
        (VALUES,),
        mean_sums,
        lambda s: metrics.SSIM(Mean(*s)),
        metrics.SSIM().update,
        lambda m: m.result(),
    ),
    "CodeCounts": (
        (GUESSES,),
        lambda x, axis: code_sums(x, 7, axis=axis),
        lambda s: metrics.CodeCounts(*s),
        metrics.CodeCounts.of(7).update,
        lambda m: (m.usage(), m.perplexity(), *m.counts),
    ),
    "Confusion": (
        (GUESSES, LABELS),
        lambda a, b, axis: confusion_sums(a, b, 5, axis=axis),
        lambda s: metrics.Confusion(*s),
        metrics.Confusion.of(5).update,
        lambda m: (m.accuracy(), m.mcc(), *m.f1()),
    ),
    "Moments": (
        (FEATURES,),
        moment_sums,
        lambda s: Moments(int(s[0]), *s[1:]),
        Moments().update,
        lambda m: (m.rows, *m.mean, *m.covariance().ravel()),
    ),
    "Pearson": (
        (PAIRS,),
        moment_sums,
        lambda s: metrics.Pearson(Moments(int(s[0]), *s[1:])),
        lambda x: metrics.Pearson().update(x[:, 0], x[:, 1]),
        lambda m: m.result(),
    ),
}
GATHERED = {
    "Spearman": lambda x: metrics.Spearman().update(x[:, 0], x[:, 1]).result(),
    "FeatureRows": lambda x: metrics.FeatureRows().update(x).result(),
}


def main():
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"))
    axis = ("data", "fsdp")
    batch = jax.device_put({name: row[0] for name, row in ROWS.items()}, NamedSharding(mesh, P(axis)))

    def step(batch):
        sums = {name: row[1](*batch[name], axis=axis) for name, row in ROWS.items()}
        bad = code_sums(jnp.where(jax.lax.axis_index("data") == 3, 7, batch["CodeCounts"][0]), 7, axis=axis)
        return sums, jax.lax.all_gather(batch["Pearson"][0], axis, tiled=True), bad

    specs = jax.tree.map(lambda _: P(axis), batch)
    run = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(specs,), out_specs=P(), check_vma=False))
    sums, rows, bad = jax.device_get(run(batch))
    found = {}
    for name, (arrays, _, state, update, number) in ROWS.items():
        wide = [np.asarray(each, np.float64) for each in sums[name]]
        empty = type(update(*arrays)) if name not in ("CodeCounts", "Confusion") else None
        merged = state(wide) if empty is None else empty().merge(state(wide))
        found[name] = [np.ravel(number(merged)).tolist(), np.ravel(number(update(*arrays))).tolist()]
    for name, number in GATHERED.items():
        found[name] = [np.ravel(number(rows)).tolist(), np.ravel(number(PAIRS)).tolist()]
    print(json.dumps({"numbers": found, "bad": bool(np.isnan(bad[0]).all())}))


if __name__ == "__main__":
    main()
