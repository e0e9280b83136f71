"""Logits of StyleGAN2's discriminator and the gradient of R1, on eight virtual devices and on one, in float64: whether
they are equal.
"""

import functools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import PartitionSpec as P

from eqxgen.configs import StyleGAN2Config
from eqxgen.losses.penalties import slopes, zero_centred
from eqxgen.models import StyleGAN2Discriminator
from eqxgen.nn import synchronised

jax.config.update("jax_enable_x64", True)


def main() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    config = StyleGAN2Config(latent_dim=4, mapping=1, width=16, max_width=4, group=4)
    net = StyleGAN2Discriminator(8, 1, None, config, key=jr.key(0))
    net = jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, net)
    arrays, static = eqx.partition(net, eqx.is_array)
    images = jr.normal(jr.key(1), (16, 8, 8, 1), jnp.float64)

    def losses(axes, arrays, images):
        own = synchronised(eqx.combine(arrays, static), axes)
        logits, _, gradient = slopes(lambda images: own.batch(images, None), images)
        return logits, zero_centred(gradient)

    def both(axes, arrays, images):
        if axes:
            arrays = jax.tree.map(lambda x: jax.lax.pcast(x, axes, to="varying"), arrays)
        logits = losses(axes, arrays, images)[0]
        grads = jax.grad(lambda arrays: jnp.sum(losses(axes, arrays, images)[1]))(arrays)
        return logits, jax.tree.map(lambda g: jax.lax.psum(g, axes), grads) if axes else grads

    every = jax.jit(functools.partial(both, ()))(arrays, images)
    split = jax.shard_map(
        functools.partial(both, ("data",)), mesh=mesh, in_specs=(P(), P("data")), out_specs=(P("data"), P())
    )
    found = jax.block_until_ready(jax.jit(split)(arrays, images))
    near = lambda a, b: bool(jnp.max(jnp.abs(a - b)) <= 1e-12 * (1 + jnp.max(jnp.abs(a))))
    alike = jax.tree.map(near, every, found)
    print(json.dumps({"logits": alike[0], "penalty": all(jax.tree.leaves(alike[1]))}))


if __name__ == "__main__":
    main()
