"""Right calls that were refused, and answers that came slowly, late or in obscure words: rows 11 to 22."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .checks import Found, check, command, last, member, outcome, shared, text_run, write_pictures


def published(folder: Path, change: Any, **config: Any) -> str:
    """A folder of a small GPT-2 as the published library writes it, with a change of its arrays."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    shapes = {"wte.weight": (50, 16), "wpe.weight": (32, 16), "ln_f.weight": (16,), "ln_f.bias": (16,)}
    layer = {"ln_1.weight": (16,), "ln_1.bias": (16,), "ln_2.weight": (16,), "ln_2.bias": (16,)}
    layer |= {"attn.c_attn.weight": (16, 48), "attn.c_attn.bias": (48,), "attn.c_proj.weight": (16, 16)}
    layer |= {"attn.c_proj.bias": (16,), "mlp.c_fc.weight": (16, 64), "mlp.c_fc.bias": (64,)}
    layer |= {"mlp.c_proj.weight": (64, 16), "mlp.c_proj.bias": (16,)}
    shapes |= {f"h.0.{name}": shape for name, shape in layer.items()}
    arrays = {f"transformer.{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    sizes = {"vocab_size": 50, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "eos_token_id": 0}
    sizes |= {"model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "n_inner": None}
    sizes |= {"attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1, "architectures": ["GPT2LMHeadModel"]}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(sizes | config))
    save_file(change(arrays), folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@check(11, "files of others", "bfloat16, a tied table under the name of the head, and dropouts that differ are read")
def files(folder: Path) -> Found:
    import ml_dtypes

    from_pretrained = member("eqxgen.pretrained.gpt2:from_pretrained")
    head = "lm_head.weight"
    renamed = lambda arrays: {head if name.endswith("wte.weight") else name: x for name, x in arrays.items()}
    half = lambda arrays: {name: x.astype(ml_dtypes.bfloat16) for name, x in arrays.items()}
    cases = {"as written": (dict, {}), "bfloat16": (half, {}), "the head's name": (renamed, {})}
    cases |= {"dropouts that differ": (dict, {"attn_pdrop": 0.0})}
    wrong = []
    for name, (change, config) in cases.items():
        with outcome() as tried:
            from_pretrained(Path(published(folder / name, change, **config)))
        wrong += [f"{name}: {tried.error[:110]}"] * bool(tried.error)
    return not wrong, "; ".join(wrong).replace(str(folder), "FOLDER") or "all four folders are read"


@check(12, "jax.export with a symbolic length", "attention exports with a symbolic batch and length")
def symbols(folder: Path) -> Found:
    import jax
    import jax.numpy as jnp
    from jax import export

    from eqxgen.ops import dot_product_attention

    shape = (*export.symbolic_shape("b,t"), 4, 16)
    call = jax.jit(lambda q, k, v: dot_product_attention(q, k, v, is_causal=True))
    with outcome(
        (
            ValueError,
            TypeError,
            NotImplementedError,
            jax.errors.JAXTypeError,
            RuntimeError,
        )
    ) as tried:
        export.export(call)(*(jax.ShapeDtypeStruct(shape, jnp.float32),) * 3)
    return not tried.error, tried.error[:200] or "exported"


@check(13, "a longer run, and a start from weights", "--steps grows where the schedule allows; --from takes a run")
def longer(folder: Path) -> Found:
    words = ["--optim.decay", "constant", "--optim.warmup", "2"]
    text_run(folder, *words, steps=2)
    status, output = text_run(folder, *words, steps=4)
    started, said = text_run(folder, *words, "--from", str(folder / "run"), name="other")
    came = f"longer: {last(output)}; from weights: {last(said)}" if status or started else "both runs are complete"
    return not status and not started, came


@check(14, "the end of a text", "a stop string ends it")
def stop(folder: Path) -> Found:
    words = ["--prompt", "the", "--chars", "60", "--stop", "e", "--temperature", "1.5"]
    status, output = command("train.sample", "--run", shared(folder, "text"), *words)
    return not status, f"status {status}: {last(output)}"


@check(15, "plain Python values", "integers and lists are taken, and ids of 1.5 are refused by name")
def plain(folder: Path) -> Found:
    import jax.random as jr

    from eqxgen.configs import GPTConfig
    from eqxgen.models.gpt import GPT
    from eqxgen.nn import Convolution, Embedding

    generate = member("eqxgen.decoding.autoregressive:generate", "eqxgen.autoregressive:generate")
    model, wrong, key = GPT(50, GPTConfig(dim=16, depth=1, heads=2, context=32), key=jr.key(0)), [], jr.key(0)
    calls = {
        "an integer": lambda: Embedding(10, 4, key=key)(3),
        "a list": lambda: generate(model, [[1, 2, 3]], 2, key=key),
        "padding 'same'": lambda: Convolution(3, 3, padding="same", key=key),
    }
    for name, call in calls.items():
        with outcome() as tried:
            call()
        answered = name.startswith("padding") and "padding must be" in tried.error and "got 'same'" in tried.error
        wrong += [f"{name}: {tried.error[:90]}"] * (bool(tried.error) and not answered)
    with outcome() as tried:
        generate(model, [np.array([1.5, 2.0])], 2, key=key)
    wrong += ["ids of 1.5 are cut in silence"] * (not tried.error)
    return not wrong, "; ".join(wrong) or "three calls run or are answered by name, ids of 1.5 are refused"


@check(16, "compiled again for a number", "other temperatures and lengths of a beam search compile nothing")
def compiled(folder: Path) -> Found:
    import jax
    import jax.random as jr

    from eqxgen.configs import GPTConfig, Sampling
    from eqxgen.models.gpt import GPT

    generate = member("eqxgen.decoding.autoregressive:generate", "eqxgen.autoregressive:generate")
    beam_search = member("eqxgen.decoding.beam:beam_search", "eqxgen.autoregressive:beam_search")
    model, count = GPT(50, GPTConfig(dim=16, depth=1, heads=2, context=32), key=jr.key(0)), [0]
    listen = lambda name, *_, **__: count.__setitem__(0, count[0] + name.endswith("backend_compile_duration"))
    jax.monitoring.register_event_duration_secs_listener(listen)
    prompt, after = np.array([1, 2, 3]), []
    for temperature in (0.7, 0.8, 0.9):
        generate(model, [prompt], 3, Sampling(temperature=temperature), key=jr.key(0))
        after.append(count[0])
    for length in (4, 5, 6):
        beam_search(model, prompt, length, 2)
        after.append(count[0])
    temperatures, lengths = after[2] - after[0], after[5] - after[3]
    return not temperatures + lengths, f"{temperatures} compilations for two temperatures, {lengths} for two lengths"


@check(17, "checks on one of two parallel paths", "sampling a MaskGIT run answers every wrong value in one line")
def sampled(folder: Path) -> Found:
    run, wrong = shared(folder, "images"), []
    flags = ("--guidance nan", "--schedule foo", "--choice-temperature inf")
    for words in flags:
        status, output = command("train.sample", "--run", run, *words.split(), "--out", folder / "x.png")
        wrong += [words] * ("Traceback" in output or not status)
    return not wrong, f"a traceback, or no error, for {', '.join(wrong)}" if wrong else "three errors of one line"


@check(18, "a metric mistyped", "--keep-best val_los is refused before the first step")
def mistyped(folder: Path) -> Found:
    status, output = text_run(folder, "--keep-best", "val_los", steps=3)
    started = (folder / "run" / "metrics.jsonl").exists()
    return bool(status) and not started, f"status {status}, {'after' if started else 'before'} step 1: {last(output)}"


@check(19, "counts in messages", "the limit of the message is that of --max-skips")
def counts(folder: Path) -> Found:
    words = ["--optim.learning-rate", "1e30", "--max-skips", "3", "--optim.warmup", "0"]
    _, output = text_run(folder, *words, steps=40)
    message = next((line for line in output.splitlines() if "in a row" in line), last(output))
    return "in a row (the limit is 3)" in message, message.strip()[:200]


@check(
    20, "objects in messages", "an HTML page as .jpg is named by its beginning; batch norm without vmap has its hint"
)
def objects(folder: Path) -> Found:
    import jax.numpy as jnp

    from eqxgen.nn import BatchNorm
    from train.data import DataConfig, load

    path = Path(write_pictures(folder / "set", [f"{label}/{i}.png" for label in "ab" for i in range(4)]))
    (path / "a" / "page.jpg").write_text("<html>404</html>")
    with outcome() as picture:
        load(DataConfig(name=str(path)))
    norm = BatchNorm(4)
    with outcome() as batch:
        norm(jnp.ones((8, 4)), norm.init_state())
    held = "page.jpg" in picture.error and "object at" not in picture.error and "vmap" in batch.error
    return held, f"{picture.error.replace(str(folder), 'FOLDER')[:130]} | {batch.error[:100]}"


@check(21, "a ddp step that returns what differs between devices", "the result is named, with the hint")
def differing(folder: Path) -> Found:
    os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
    import jax.numpy as jnp

    from train import ddp

    with outcome() as tried:
        ddp(lambda model, batch: {"model": model, "loss": jnp.mean(batch)})(jnp.ones(2), jnp.ones((8, 3)))
    return "result['loss']" in tried.error and "`gradients`" in tried.error, tried.error[:200]


@check(22, "a huge number that is masked", "it reaches no derivative of `reference` or of the default")
def huge(folder: Path) -> Found:
    import jax
    import jax.numpy as jnp

    from eqxgen.ops import dot_product_attention, masks

    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (1, n, 2, 16)) for key, n in zip(keys, (7, 9, 9)))
    spoilt = [x.at[:, 6:].set(1e38) for x in (k, v)]
    mask, wrong = masks.Segments(jnp.zeros((1, 7), int), jnp.where(jnp.arange(9) < 6, 0, 1)[None]), []
    for name in ("reference", "xla"):
        total = lambda q, name=name: jnp.sum(jnp.sin(dot_product_attention(q, *spoilt, mask=mask, implementation=name)))
        second = lambda q, total=total: jax.jvp(jax.grad(total), (q,), (jnp.ones_like(q),))[1]
        for order, derivative in (("first", jax.grad(total)), ("second", second)):
            wrong += [f"{name}: {order}"] * (not bool(jnp.isfinite(derivative(q)).all()))
    return not wrong, f"not finite: {', '.join(wrong)}" if wrong else "first and second derivatives are finite"
