"""Results that were wrong, or lost in silence: rows 1 to 10."""

import json
import os
from pathlib import Path

import numpy as np

from .checks import (
    Found,
    check,
    command,
    last,
    member,
    outcome,
    shared,
    text_run,
    write_pictures,
    write_text,
)


@check(1, "explicit mesh axes", "attention, norms and embeddings run on them, forward and gradient")
def explicit_axes(folder: Path) -> Found:
    os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=4"
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    from jax.sharding import NamedSharding, PartitionSpec

    from eqxgen.nn import Embedding
    from eqxgen.ops import dot_product_attention, layer_norm

    mesh, failed = jax.make_mesh((4,), ("x",)), []
    place = lambda x: jax.device_put(x, NamedSharding(mesh, PartitionSpec("x")))
    total = lambda q, k, v: jnp.sum(dot_product_attention(q, k, v, is_causal=True) ** 2)
    with jax.set_mesh(mesh):
        for length, groups in ((64, 4), (64, 2), (300, 4)):
            q, k, v = (place(jr.normal(jr.key(i), (4, length, n, 16))) for i, n in enumerate((4, groups, groups)))
            with outcome() as tried:
                jax.block_until_ready(jax.jit(jax.grad(total, (0, 1, 2)))(q, k, v))
            failed += [f"attention of length {length} with {groups} key heads: {tried.error}"] * bool(tried.error)
        with outcome() as tried:
            jax.jit(jax.grad(lambda x: jnp.sum(layer_norm(x, jnp.ones(16), jnp.zeros(16)) ** 2)))(
                place(jnp.ones((4, 16)))
            )
        failed += [f"layer_norm: {tried.error}"] * bool(tried.error)
        layer = Embedding(10, 16, key=jr.key(0))
        with outcome() as tried:
            jax.jit(jax.vmap(lambda ids: layer(ids)))(place(jnp.zeros((4, 3), jnp.int32)))
        failed += [f"Embedding: {tried.error}"] * bool(tried.error)
    return not failed, f"{len(failed)} of 5 fail; {failed[0][:160]}" if failed else "5 calls and gradients run"


@check(2, "a run resumes on other data", "it is refused, and the error names the data and the flag that allows it")
def other_data(folder: Path) -> Found:
    import shutil

    text_run(folder, "--checkpoint-every", "2")
    shutil.rmtree(folder / "run" / "checkpoints" / "4")
    (folder / "run" / "summary.json").unlink()
    text = folder / "text.txt"
    text.write_text(text.read_text()[::-1])
    status, output = text_run(folder, "--checkpoint-every", "2")
    return bool(status) and "--data.changed" in output, f"status {status}: {last(output)}"


@check(
    3, "pictures left out in silence", "every kind of picture at any depth is read, and the rest are named in a line"
)
def left_out(folder: Path) -> Found:
    from train.data import DataConfig, load

    kinds = [f"{i}.{kind}" for i in range(4) for kind in ("png", "tif", "gif", "ppm")]
    nested = [f"more/{i}.png" for i in range(4)]
    name = write_pictures(folder / "set", [f"{label}/{path}" for label in "ab" for path in kinds + nested])
    with outcome() as tried:
        data = load(DataConfig(name=name))
    count = 0 if tried.error else len(data.train_images) + len(data.test_images)
    return count == 40, tried.error or f"{count} of 40 pictures are read; it prints {tried.said.strip()!r}"


@check(4, "labels with a gap", "a gap is named by every source; one class and no classes are taken")
def labels(folder: Path) -> Found:
    from train.data import DataConfig, load

    count, wrong = np.arange(20), []
    sets = {"one class": count * 0, "labels 1 and 2": count % 2 + 1}
    for name, given in sets.items():
        path = folder / f"{name}.npz"
        np.savez(path, images=np.zeros((20, 8, 8, 3), np.uint8), labels=given)
        with outcome() as tried:
            load(DataConfig(name=str(path)))
        refused = bool(tried.error)
        wrong += [f"an .npz of {name} is {'refused' if refused else 'taken'}"] * (refused != (name != "one class"))
    for name, words in {"one class": ["a/{}.png"], "no classes": ["{}.png"]}.items():
        path = write_pictures(folder / name, [word.format(i) for word in words for i in range(10)])
        with outcome() as tried:
            load(DataConfig(name=path))
        wrong += [f"a folder of {name} is refused: {tried.error[:80]}"] * bool(tried.error)
    return not wrong, "; ".join(wrong).replace(str(folder), "FOLDER") or "the gap is refused, the others are taken"


@check(5, "line ends", "CR LF and CR are one line end, and the default prompt exists")
def line_ends(folder: Path) -> Found:
    wrong = []
    for name, end in {"CR LF": "\r\n", "one line": " "}.items():
        (folder / name).mkdir()
        write_text(folder / name / "text.txt", end)
        status, output = text_run(folder / name, steps=2)
        status, output = command("train.sample", "--run", str(folder / name / "run"), "--chars", "40")
        wrong += [f"{name}: status {status}, {last(output)}"] * bool(status)
        kept = "\\r" in (folder / name / "run" / "vocabulary.json").read_text()
        wrong += [f"{name}: the vocabulary has a CR"] * kept
    return not wrong, "; ".join(wrong) or "no CR in the vocabulary, and both runs are sampled"


@check(6, "nearest code far from zero", "the ids are those of float64")
def nearest(folder: Path) -> Found:
    import jax.random as jr

    from eqxgen.nn import VectorQuantizer

    layer, shares = VectorQuantizer(64, 8, key=jr.key(0)), {}
    for offset in (10, 100, 1000):
        codes, z = (jr.normal(jr.key(i), (n, 8)) * 0.1 + offset for i, n in ((1, 64), (2, 512)))
        object.__setattr__(layer, "codebook", codes)
        true = np.square(np.asarray(z, float)[:, None] - np.asarray(codes, float)[None]).sum(-1).argmin(1)
        shares[offset] = round(float(np.mean(np.asarray(layer.nearest(z)) == true)), 3)
    return min(shares.values()) > 0.99, f"share of right ids by offset: {shares}"


@check(7, "NaN that looks like a result", "beam search of a model of NaN raises, as stream does")
def nan_beams(folder: Path) -> Found:
    import equinox as eqx
    import jax.random as jr

    from eqxgen.configs import GPTConfig
    from eqxgen.models.gpt import GPT

    beam_search = member("eqxgen.decoding.beam:beam_search", "eqxgen.autoregressive:beam_search")
    model = GPT(50, GPTConfig(dim=16, depth=1, heads=2, context=32), key=jr.key(0))
    model = eqx.tree_at(lambda m: m.norm.scale, model, model.norm.scale * np.nan)
    with outcome(
        (
            ValueError,
            FloatingPointError,
        )
    ) as tried:
        ids = beam_search(model, np.array([1, 2, 3]), 3, 2)[0]
    return bool(tried.error), tried.error or f"ids {np.asarray(ids).tolist()}"


@check(8, "warm-up", "step i has the rate (i+1)/warm-up of the peak, and none is lost")
def warm_up(folder: Path) -> Found:
    lines = (shared(folder, "text") / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["learning_rate"] for line in lines][:3]
    return np.allclose(rates, np.array([0.5, 1, 1]) * rates[2]), f"rates of a warm-up of 2 steps: {rates}"


@check(9, "inpainting by the schedules log and exp", "16 unknown of 256 leave 12 8 5 4 2 1 1 0 by log")
def inpainting(folder: Path) -> Found:
    import inspect

    import jax.numpy as jnp
    import jax.random as jr

    decode = member("eqxgen.decoding.masked:masked_decode", "eqxgen.generate:masked_decode")
    wanted = {"log": [12, 8, 5, 4, 2, 1, 1, 0], "exp": [14, 13, 12, 11, 10, 8, 4, 0]}
    found = {}
    for name in wanted:
        options = {"steps": 8, "schedule": name}
        given = (jnp.zeros(256, jnp.int32), jnp.arange(256) < 16)
        if "schedule" in inspect.signature(decode).parameters:
            history = decode(lambda ids: jnp.zeros((256, 7)), *given, mask_id=7, key=jr.key(0), **options)
        else:
            rules = member("eqxgen.configs:MaskedDecoding")(**options)
            history = decode(lambda ids: jnp.zeros((256, 7)), *given, rules, mask_id=7, key=jr.key(0))
        found[name] = np.sum(np.asarray(history) == 7, axis=1).tolist()
    return found == wanted, f"left: {found}"


@check(10, "tiny temperatures", "the likeliest token is drawn")
def tiny(folder: Path) -> Found:
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.configs import Sampling

    draw = member("eqxgen.decoding.logits:draw", "eqxgen.sampling:draw")
    rules_of = getattr(member("eqxgen.decoding.logits:Rules", "builtins:object"), "of", lambda sampling: sampling)
    logits, drawn = jnp.array([5.0, 1.0, 60.0, 30.0]), {}
    for temperature in (1e-30, 1e-38, 1e-42):
        rules = rules_of(Sampling(temperature=temperature))
        drawn[temperature] = int(draw(logits, rules, jnp.zeros(4, bool), key=jr.key(0)))
    return set(drawn.values()) == {2}, f"tokens by temperature, where 2 is the likeliest: {drawn}"
