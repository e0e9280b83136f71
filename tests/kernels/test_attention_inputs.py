"""Every wrong call of attention says what is wrong, before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import ALiBi, dot_product_attention, masks

Q, K = jnp.ones((2, 5, 4, 8)), jnp.ones((2, 7, 2, 8))
GOOD = {"query": Q, "key": K, "value": K}

WRONG = [
    ({"query": jnp.ones((2, 5, 3, 8))}, ValueError, r"key heads must divide.*got 3 query heads and 2 key heads"),
    ({"value": K[:, :6]}, ValueError, r"key and value must have the same length: got key length 7 and value length 6"),
    ({"value": jnp.ones((2, 7, 4, 8))}, ValueError, r"same number of heads: got 2 key heads and 4 value heads"),
    ({"key": jnp.ones((2, 7, 2, 6))}, ValueError, r"same head_dim: got query 8 and key 6"),
    ({"key": K.astype(jnp.bfloat16)}, TypeError, r"one dtype: got float32, bfloat16 and float32; cast them first"),
    ({"query": Q.astype(jnp.int32)}, TypeError, r"query must be float32.*got int32"),
    ({"value": K.astype(bool)}, TypeError, r"value must be float32.*got bool"),
    ({"key": K.astype(jnp.complex64)}, TypeError, r"key must be float32.*got complex64"),
    (
        {"key": K[:1], "value": K[:1]},
        ValueError,
        r"query and key must have the same leading axes: got query \(2, 5, 4, 8\) and key \(1, 7",
    ),
    ({"query": Q[0, 0]}, ValueError, r"query must have shape \(\*batch, seq, heads, head_dim\): got \(4, 8\)"),
    ({"query": jnp.ones((2, 5, 4, 0)), "key": jnp.ones((2, 7, 2, 0))}, ValueError, r"head_dim must be positive: got 0"),
    ({"query": jnp.ones((2, 5, 0, 8))}, ValueError, r"must divide.*got 0 query heads"),
    ({"mask": jnp.ones((5, 7))}, TypeError, r"mask must be boolean.*got float32; pass a number to add as `bias`"),
    ({"mask": jnp.ones((5, 6), bool)}, ValueError, r"mask must broadcast to .*\(\.\.\., 5, 7\): got shape \(5, 6\)"),
    (
        {"mask": jnp.ones((3, 1, 5, 7), bool)},
        ValueError,
        r"mask must broadcast to .*\(2, 4, 5, 7\): got shape \(3, 1, 5, 7\)",
    ),
    (
        {"mask": masks.Segments(np.arange(5))},
        ValueError,
        r"kv_ids must have one id per key: got shape \(5,\) for 7 positions",
    ),
    (
        {"bias": jnp.ones((2, 3, 5, 7))},
        ValueError,
        r"bias must broadcast to .*\(2, 4, 5, 7\): got shape \(2, 3, 5, 7\)",
    ),
    ({"bias": jnp.ones((5, 7), bool)}, TypeError, r"bias must be floating: got bool; pass a boolean array as `mask`"),
    ({"bias": ALiBi(jnp.ones(3))}, ValueError, r"slopes must have shape \(heads,\) = \(4,\): got \(3,\)"),
    ({"scale": float("nan")}, ValueError, r"scale must be finite and positive: got nan"),
    ({"scale": 0.0}, ValueError, r"scale must be finite and positive: got 0.0"),
    ({"scale": -1.0}, ValueError, r"scale must be finite and positive: got -1.0"),
    (
        {"query_seq_lengths": np.array([6, 1])},
        ValueError,
        r"query_seq_lengths must be between 0.*got 1 to 6 for length 5",
    ),
    (
        {"key_value_seq_lengths": np.array([-1, 1])},
        ValueError,
        r"key_value_seq_lengths must be between 0.*got -1 to 1 for length 7",
    ),
    (
        {"key_value_seq_lengths": np.array([1, 1, 1])},
        ValueError,
        r"key_value_seq_lengths must have shape .*\(2,\): got \(3,\)",
    ),
    (
        {"key_value_seq_lengths": np.array([1.0, 1.0])},
        TypeError,
        r"key_value_seq_lengths must be integers: got float64",
    ),
    ({"local_window_size": -1}, ValueError, r"local_window_size must not be negative: got -1"),
    ({"local_window_size": (1, -2)}, ValueError, r"local_window_size must not be negative: got \(1, -2\)"),
    ({"local_window_size": 1.5}, TypeError, r"local_window_size must be an int or a pair of ints: got 1.5"),
    ({"logits_soft_cap": 0.0}, ValueError, r"logits_soft_cap must be finite and positive: got 0.0"),
    ({"dropout_rate": 0.1}, ValueError, r"dropout_rate=0.1 needs a dropout_key"),
    ({"dropout_rate": 1.0, "dropout_key": jax.random.key(0)}, ValueError, r"dropout_rate must be in \[0, 1\): got 1.0"),
    (
        {"dropout_rate": -0.1, "dropout_key": jax.random.key(0)},
        ValueError,
        r"dropout_rate must be in \[0, 1\): got -0.1",
    ),
    (
        {"dropout_rate": 0.1, "dropout_key": jax.random.split(jax.random.key(0))},
        ValueError,
        r"must be one key of jax.random: got shape \(2,\)",
    ),
    ({"dropout_rate": 0.1, "dropout_key": 3}, TypeError, r"dropout_key must be a key of jax.random: got int"),
    ({"implementation": "cuda"}, ValueError, r"implementation must be None or one of .*'mosaic_tpu'.*got 'cuda'"),
    ({"implementation": "triton"}, NotImplementedError, r"'triton' cannot run: .*this program is compiled for cpu"),
    (
        {"implementation": "mosaic_gpu"},
        NotImplementedError,
        r"'mosaic_gpu' cannot run: (it needs jax 0.11|the kernel computes bfloat16)",
    ),
    (
        {"implementation": "cudnn"},
        NotImplementedError,
        r"'cudnn' cannot run: it computes bfloat16 and float16: got float32",
    ),
    (
        {"implementation": "mosaic_tpu"},
        NotImplementedError,
        r"'mosaic_tpu' cannot run: it runs on TPUs only.*compiled for cpu",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=[w[2][:40] for w in WRONG])
def test_a_wrong_call_names_the_argument_the_law_and_both_values(change, error, message):
    with pytest.raises(error, match=message):
        dot_product_attention(**GOOD | change)


def test_lengths_that_are_only_known_at_run_time_are_taken_as_they_are():
    f = jax.jit(lambda n: dot_product_attention(**GOOD, key_value_seq_lengths=n))
    np.testing.assert_array_equal(f(np.array([7, 7])), dot_product_attention(**GOOD))


def test_a_scale_that_is_only_known_at_run_time_has_a_gradient():
    draw = np.random.default_rng(0)
    q, k, v = (jnp.asarray(draw.standard_normal((1, 5, 2, 8)), jnp.float32) for _ in range(3))
    f = lambda scale: jnp.sum(jnp.sin(dot_product_attention(q, k, v, scale=scale)))
    value, grad = jax.jit(jax.value_and_grad(f))(0.3)
    np.testing.assert_allclose(value, f(0.3), rtol=1e-6)
    np.testing.assert_allclose(grad, (f(0.31) - f(0.29)) / 0.02, rtol=1e-2)
