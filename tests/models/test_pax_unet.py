"""The U-Net and the diffusion of Pax's example, against its own answers (tests/oracles/pax.py)."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from einops import rearrange

from eqxgen.configs import PaxUNetConfig
from eqxgen.diffusion.guidance import Clipped
from eqxgen.diffusion.precondition import Epsilon
from eqxgen.diffusion.schedules import Discrete, betas_of
from eqxgen.diffusion.solvers import DDPM, sample
from eqxgen.models import PaxUNet
from tests import oracles
from tests.full import rows
from tests.oracles._drawn import published

CASES = oracles.load("pax")
DIFFUSION = CASES.pop("diffusion")
SMALL = PaxUNetConfig(width=8, multipliers=(1, 2), heads=2, head_dim=3, groups=4)


def with_arrays(model, arrays):
    """The net with arrays by the example's names."""
    pairs = []

    def put(module, name, change=lambda weight: weight):
        pairs.append((module.weight, change(arrays[f"{name}.weight"])))
        if module.bias is not None:
            pairs.append((module.bias, arrays[f"{name}.bias"]))

    def norm(module, name):
        pairs.extend([(module.scale, arrays[f"{name}.scale"]), (module.bias, arrays[f"{name}.offset"])])

    def conv_block(module, name):
        put(module.convs, f"{name}.blocks.parts.0")
        norm(module.norm, f"{name}.blocks.parts.1")

    def block(module, name):
        conv_block(module.before, f"{name}.block1")
        conv_block(module.after, f"{name}.block2")
        put(module.modulation, f"{name}.mlp.parts.1", np.transpose)
        if module.shortcut is not None:
            put(module.shortcut, f"{name}.res_conv")

    def attended(module, *names):
        for part, name in zip((*module.blocks, module), names, strict=True):
            if part is not module:
                block(part, name)
        norm(module.norm, f"{names[2]}.norm")
        layer = module.attention
        by_heads = "a b c (parts heads dim) -> (a b heads parts dim) c"  # ours has the parts of a head side by side
        put(layer.qkv, f"{names[2]}.fn.to_qkv", lambda w: rearrange(w, by_heads, parts=3, heads=layer.heads))
        put(layer.out, f"{names[2]}.fn.to_out", lambda w: w[0, 0].T)

    put(model.time.up, "time_mlp.parts.1", np.transpose)
    put(model.time.down, "time_mlp.parts.3", np.transpose)
    for i, down in enumerate(model.downs):
        attended(down.level, *(f"downs.{i}.{part}" for part in ("0", "1", "2.fn")))
        if down.step is not None:
            put(down.step, f"downs.{i}.3.conv")
    attended(model.middle, "mid_block1", "mid_block2", "mid_attn.fn")
    for i, up in enumerate(model.ups):
        attended(up.level, *(f"ups.{i}.{part}" for part in ("0", "1", "2.fn")))
        put(up.step, f"ups.{i}.3.conv", lambda w: w[::-1, ::-1].swapaxes(2, 3))  # theirs is not flipped
    conv_block(model.after, "final_conv.parts.0")
    put(model.head, "final_conv.parts.1")
    places, values = zip(*pairs)
    assert sum(value.size for value in values) == sum(array.size for array in arrays.values())
    found = {id(place): jnp.asarray(value) for place, value in zip(places, values)}
    assert all(place.shape == found[id(place)].shape for place in places)
    return jax.tree.map(lambda leaf: found.get(id(leaf), leaf), model)


@pytest.mark.parametrize("name", rows(CASES, "two levels"))
def test_the_net_of_the_example_has_its_outputs(name):
    case = CASES[name]
    options, arrays = json.loads(str(case["config"])), published(case["shapes"])
    config = PaxUNetConfig(options["dim"], tuple(options["dim_mults"]), groups=options.get("groups", 8))
    model = with_arrays(
        eqx.filter_eval_shape(lambda: PaxUNet(options["channels"], None, config, key=jr.key(0))), arrays
    )
    out = jax.jit(jax.vmap(model))(case["x"], case["time"].astype(np.float32))
    np.testing.assert_allclose(out, case["out"], atol=1e-5 * np.abs(case["out"]).max())


def test_the_defaults_are_the_sizes_of_the_example():
    model = eqx.filter_eval_shape(lambda: PaxUNet(3, None, PaxUNetConfig(), key=jr.key(0)))
    sizes = [leaf.size for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.ShapeDtypeStruct)]
    down = [(3, 64, 64), (64, 128, 128), (128, 256, 256), (256, 512, 512)]
    up = [(1024, 256, 256), (512, 128, 128), (256, 64, 64)]
    block = lambda a, b: (9 * a + 1) * b + (9 * b + 1) * b + 4 * b + 65 * b + (a != b) * (a + 1) * b
    attention = lambda c: 2 * c + 3 * 128 * c + 129 * c
    level = lambda a, b: block(a, b) + block(b, b) + attention(b)
    steps = sum((9 * c + 1) * c for c in (64, 128, 256)) + sum((16 * c + 1) * c for c in (256, 128, 64))
    ends = 65 * 256 + 257 * 64 + (9 * 64 + 1) * 64 + 128 + 65 * 3
    assert sum(sizes) == sum(level(a, b) for a, b, _ in down + up) + level(512, 512) + steps + ends


def test_an_image_that_cannot_be_halved_a_label_and_sizes_are_named():
    net = eqx.filter_eval_shape(lambda: PaxUNet(3, 5, SMALL, key=jr.key(0)))
    call = lambda x, *label: eqx.filter_eval_shape(lambda net: net(x, jnp.float32(0), *label), net)
    assert net.null_label == 5
    assert call(jnp.ones((6, 4, 3)), jnp.int32(5)).shape == (6, 4, 3)
    with pytest.raises(ValueError, match="factor must divide width: got width=7, factor=2"):
        call(jnp.ones((8, 7, 3)), jnp.int32(0))
    with pytest.raises(ValueError, match="label must be given: the net has classes=5"):
        call(jnp.ones((8, 8, 3)))
    with pytest.raises(ValueError, match=r"model\.groups must divide 12 channels: got 8"):
        PaxUNetConfig(width=12)
    with pytest.raises(ValueError, match=r"model\.multipliers must be at least one, each at least 1"):
        PaxUNetConfig(multipliers=())


def test_the_examples_cosine_schedule_is_the_papers_as_its_two_steps_too_many_cancel():
    """T + 1 points from 0 to T + 1, over T + 1: i / T, as in the paper and in ours."""
    np.testing.assert_allclose(DIFFUSION["betas"], betas_of("cosine", len(DIFFUSION["betas"])), rtol=1e-6)


def test_a_clipped_step_of_ddpm_is_the_examples():
    schedule = Discrete(tuple(DIFFUSION["betas"].tolist()))
    denoiser = Clipped(Epsilon(lambda x, t, condition, **_: x / 2, schedule))
    steps = schedule.steps
    for x, step, mean, log_variance in zip(*(DIFFUSION[name] for name in ("x", "time", "mean", "log_variance"))):
        times = jnp.asarray([(step + 1) / steps, step / steps])
        still, noised = (
            sample(
                denoiser,
                jnp.asarray(x),
                times,
                DDPM(),
                key=jr.key(0),
                noise=lambda *given, by=by: jnp.full_like(given[-1], by),
            ).x
            for by in (0.0, 1.0)
        )
        np.testing.assert_allclose(still, mean, atol=1e-5)
        np.testing.assert_allclose(noised - still, np.full(x.shape, np.exp(log_variance / 2) * (step > 0)), atol=1e-5)
