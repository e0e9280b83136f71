"""Grouped products against their definition, alone and under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kernels import grouped_matmul
from kernels.grouped import reference
from tests.arrays import drawn, integers

X, WEIGHT, GROUPS = drawn((2, 11, 5)), drawn((4, 3, 5), 1), integers((2, 11), 4, 2)


def measured(product):
    """Results and gradients of a batch that shares its matrices, and of one in which each example has its own."""

    def loss(x, weight):
        y = jax.vmap(product, (0, None, 0))(x, weight, GROUPS)
        own = jax.vmap(product)(x, jnp.stack([weight, jnp.cos(weight)]), GROUPS)
        return jnp.sum(jnp.sin(y)) + jnp.sum(own**2), (y, own)

    both = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    each = jax.vmap(jax.grad(lambda x, w, g: jnp.sum(product(x, w, g) ** 3), argnums=(0, 1)), (0, None, 0))
    return jax.jit(lambda x, weight: (both(x, weight), each(x, weight, GROUPS)))(X, WEIGHT)


def test_each_row_has_the_matrix_of_its_group_with_gradients_alone_and_in_batches():
    found, wanted = measured(grouped_matmul), measured(reference.grouped_matmul)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_every_derivative_exists():
    product = lambda x, weight: grouped_matmul(x, weight, GROUPS[0])
    check_grads(jax.jit(product), (X[0], WEIGHT), order=2, modes=("fwd", "rev"), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((X[0], WEIGHT[0], GROUPS[0]), r"weight \(groups, out_dim, in_dim\) of one in_dim: got shapes"),
        ((X[0, :, :4], WEIGHT, GROUPS[0]), r"of one in_dim: got shapes \(11, 4\) and \(4, 3, 5\)"),
        ((X[0], WEIGHT, GROUPS[0, :3]), r"groups must be \(rows,\), .*: got shape \(3,\) for x of \(11, 5\)"),
        ((X[0], WEIGHT, X[0, :, 0]), "groups must be integers: got float32"),
        ((GROUPS, jnp.ones((4, 3, 11)), GROUPS[:, 0]), "x must be floating point: got int32"),
    ],
)
def test_wrong_arguments_are_named(arguments, says, unchecked):
    with pytest.raises(ValueError, match=says):
        jax.eval_shape(grouped_matmul, *arguments)
