"""cuDNN's attention by way of `jax.nn`: which calls it takes, what reaches it, and the derivative that it lacks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import ALiBi, dot_product_attention, masks
from kernels.attention import cudnn, reference
from kernels.attention.problem import Extras, Setting

attend = functools.partial(dot_product_attention, implementation="cudnn")
X = jax.ShapeDtypeStruct((2, 64, 4, 64), jnp.bfloat16)
wide = lambda head_dim: jax.ShapeDtypeStruct((2, 64, 4, head_dim), jnp.bfloat16)

REFUSED = {
    "float32": ((jax.ShapeDtypeStruct(X.shape, jnp.float32),) * 3, {}, "it computes bfloat16 and float16: got float32"),
    "soft cap": ((X,) * 3, {"logits_soft_cap": 2.0}, "it has no soft cap"),
    "dropout": ((X,) * 3, {"dropout_rate": 0.1, "dropout_key": jax.random.key(0)}, "it draws other dropout bits"),
    "bias": ((X,) * 3, {"bias": jnp.zeros((64, 64))}, "it has no gradient for a bias that broadcasts"),
    "alibi": ((X,) * 3, {"bias": ALiBi.geometric(4)}, "it has no gradient for a bias that broadcasts"),
    "window": ((X,) * 3, {"local_window_size": 3}, "except with no mask or `is_causal=True`"),
    "lengths": ((X,) * 3, {"key_value_seq_lengths": np.array([3, 4])}, "except with no mask or `is_causal=True`"),
    "causal offset": ((X,) * 3, {"mask": masks.Causal(2)}, "except with no mask or `is_causal=True`"),
    "latent": ((X, X, wide(32)), {}, "its values must have the head_dim of its keys: got 32 and 64"),
    "odd head_dim": ((wide(60),) * 3, {}, "its head_dim is a multiple of 8 up to 256: got 60"),
    "long head_dim": ((wide(264),) * 3, {}, "its head_dim is a multiple of 8 up to 256: got 264"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_cudnn_would_answer_otherwise_is_refused_with_the_reason(name):
    arrays, arguments, reason = REFUSED[name]
    with pytest.raises(NotImplementedError, match="implementation 'cudnn' cannot run: .*" + reason):
        jax.eval_shape(lambda *x: attend(*x, **arguments), *arrays)


def test_a_program_for_another_platform_says_so():
    with pytest.raises(NotImplementedError, match="it runs on NVIDIA GPUs only, and this program is compiled for cpu"):
        jax.jit(attend).lower(X, X, X)


@pytest.fixture
def asked(monkeypatch):
    """The calls of `jax.nn`, which here answers by its plain form."""
    calls = []

    def answer(*arrays, implementation, **arguments):
        calls.append(arguments | {"implementation": implementation, "shapes": [x.shape for x in arrays]})
        return plain(*arrays, **arguments)

    plain = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", answer)
    return calls


@pytest.mark.parametrize("causal", [False, True])
def test_a_call_reaches_jax_nn_with_its_arguments(asked, causal):
    draw = np.random.default_rng(0)
    q, k, v = (jnp.asarray(draw.standard_normal((2, 9, heads, 8)), jnp.float32) for heads in (4, 2, 2))
    extras, setting = Extras(mask=masks.Causal() if causal else None), Setting(0.3)
    got, want = jax.jit(lambda *x: [f(*x, extras, setting) for f in (cudnn.attend, reference.attend)])(q, k, v)
    shapes = [(2, 9, 4, 8), (2, 9, 2, 8), (2, 9, 2, 8)]
    assert asked == [
        {"scale": 0.3, "is_causal": causal, "return_residual": True, "implementation": "cudnn", "shapes": shapes}
    ]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), got, want)


@pytest.mark.parametrize("with_logsumexp", [False, True])
def test_the_logsumexp_has_its_true_derivative(asked, with_logsumexp):
    draw = np.random.default_rng(0)
    q, k, v, dout = (jnp.asarray(draw.standard_normal((2, 9, heads, 8)), jnp.float32) for heads in (4, 2, 2, 4))
    dlse = jnp.asarray(draw.standard_normal((2, 4, 9)), jnp.float32) * with_logsumexp
    extras, setting = Extras(mask=masks.Causal()), Setting(0.3)
    gradients = lambda q, k, v, *rest: cudnn.gradients(
        q, k, v, extras, setting, *cudnn.attend(q, k, v, extras, setting), *rest, with_bias=False
    )
    got = jax.jit(gradients)(q, k, v, dout, dlse)
    want = jax.jit(lambda *x: jax.vjp(lambda *y: reference.attend(*y, extras, setting), *x[:3])[1](x[3:]))(
        q, k, v, dout, dlse
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), got, want)


def test_a_program_lowered_for_cuda_calls_cudnn_forward_and_backward(monkeypatch):
    fused = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    # There is no cuDNN here to ask for its version, and no GPU for its generation.
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91200)
    monkeypatch.setattr(fused, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(fused, "is_cuda_compute_capability_equal", lambda capability: capability == "9.0")
    lowered = lambda f: jax.jit(f).trace(X, X, X).lower(lowering_platforms=("cuda",)).as_text()
    forward = lowered(functools.partial(attend, is_causal=True, scale=0.25))
    assert forward.count("@__cudnn$fmhaSoftmax(") == 1
    assert "fmha_scale\\22: 0.25" in forward
    assert "CAUSAL" in forward
    assert "NO_MASK" in lowered(attend)
    assert "@__cudnn$fmhaSoftmaxBackward(" in lowered(jax.grad(lambda *x: jnp.sum(attend(*x).astype(jnp.float32))))
