"""A third op on the fused machine: values, every derivative, vmap, shard_map and the choice of a kernel."""

import dataclasses
import functools
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads

from kernels import attention, norm
from kernels._fused import Op, Primitives, Target, refusal

PRIMITIVES = Primitives("eqxgen_test_scaled_sine")


@dataclasses.dataclass(frozen=True)
class ScaledSine(Op):
    """`(x, scale, shift) -> (y, sin(x), on CPU)`: x (batch, n), others (batch or 1, n), shift without a derivative."""

    gain: float = 1.0
    core = 1

    @property
    def movable(self):
        return 2

    def shapes(self, x, *rest):
        return x, x, x.update(shape=x.shape[:1])

    def forward(self, target, x, scale, shift):
        return (
            self.gain * scale * jnp.sin(x) + shift,
            jnp.sin(x),
            jnp.full(x.shape[:1], 1.0 * (target.platform == "cpu")),
        )

    def backward(self, target, primals, saved, cotangents, count):
        x, scale, _ = primals
        d_scale = self.gain * cotangents[0] * saved[1]
        summed = d_scale.sum(0, keepdims=True) if scale.shape[0] == 1 else d_scale
        return (self.gain * scale * jnp.cos(x) * cotangents[0], summed)[:count]

    def plain(self, x, scale, shift):
        return (self.gain * scale * jnp.sin(x) + shift,)


def scaled_sine(x, scale, shift=None):
    return PRIMITIVES.bind(ScaledSine(2.0), x, scale, jnp.zeros_like(scale) if shift is None else shift)[0]


def formula(x, scale):
    return 2.0 * scale * jnp.sin(x)


X, SHARED, OWN = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(3, 5), (1, 5), (3, 5)]))
close = functools.partial(jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6))


@pytest.mark.parametrize("scale", [SHARED, OWN], ids=["shared", "own"])
def test_values_and_derivatives_to_second_order_are_those_of_the_formula(scale):
    close(scaled_sine(X, scale), formula(X, scale))
    check_grads(scaled_sine, (X, scale), order=2, modes=("fwd", "rev"), rtol=2e-2, atol=2e-2)
    both = [jax.hessian(lambda x, s, f=f: jnp.sum(jnp.exp(f(x, s))), (0, 1))(X, scale) for f in (scaled_sine, formula)]
    close(*both)


@pytest.mark.parametrize("scale", [SHARED, OWN], ids=["shared", "own"])
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (1, 1)], ids=str)
def test_vmap_of_values_tangents_and_gradients_agrees_with_the_formula(axes, scale):
    stack = lambda x, axis: x if axis is None else jnp.stack([x, 2 * x, -x, x + 1], axis)
    arguments = [stack(x, axis) for x, axis in zip((X, scale), axes)]

    def all_of(f):
        loss = lambda x, s: jnp.sum(jnp.exp(f(x, s)))
        tangent = lambda x, s: jax.jvp(f, (x, s), (jnp.ones_like(x), jnp.cos(s)))[1]
        product = lambda x, s: jax.jvp(jax.grad(loss, (0, 1)), (x, s), (x, s))[1]
        return lambda x, s: (f(x, s), tangent(x, s), jax.grad(loss, (0, 1))(x, s), product(x, s))

    close(*(jax.jit(jax.vmap(all_of(f), axes))(*arguments) for f in (scaled_sine, formula)))


def test_the_gradient_is_linear_and_its_transpose_is_the_tangent():
    _, pull = jax.vjp(lambda x: scaled_sine(x, OWN), X)
    (back,) = jax.linear_transpose(lambda c: pull(c)[0], X)(jnp.ones_like(X))
    close(back, jax.jvp(lambda x: scaled_sine(x, OWN), (X,), (jnp.ones_like(X),))[1])
    (text,) = {str(jax.make_jaxpr(lambda c: pull(c)[0])(X)).count("eqxgen_test_scaled_sine_backward[")}
    assert text == 1


@pytest.mark.parametrize("check_vma", [True, False])
def test_it_runs_in_shard_map(check_vma):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    part, whole = PartitionSpec("data"), PartitionSpec()
    cast = lambda s: jax.lax.pcast(s, "data", to="varying") if check_vma else s

    def gradient(f, x, s):
        return jax.lax.psum(jax.grad(lambda s: jnp.sum(jnp.exp(f(x, s))))(cast(s)), "data")

    run = lambda f: jax.shard_map(
        functools.partial(gradient, f), mesh=mesh, in_specs=(part, whole), out_specs=whole, check_vma=check_vma
    )(X, SHARED)
    close(run(scaled_sine), run(formula))


def test_it_runs_without_jit_and_exports_for_two_platforms():
    with jax.disable_jit():
        close(jax.grad(lambda x: jnp.sum(scaled_sine(x, OWN)))(X), 2.0 * OWN * jnp.cos(X))
    exported = jax.export.export(jax.jit(scaled_sine), platforms=("cpu", "tpu"))(X, OWN)
    close(exported.call(X, OWN), formula(X, OWN))
    close(PRIMITIVES.bind(ScaledSine(), X, OWN, OWN)[2], jnp.ones(3))


@pytest.mark.parametrize(
    ("target", "platform", "divisible", "reason"),
    [
        (None, "tpu", False, None),
        (Target("tpu"), "tpu", False, None),
        (Target("cpu"), "tpu", False, "it runs on TPUs only, and this program is compiled for cpu"),
        (Target(""), "cuda", True, "it runs on NVIDIA GPUs only, and this program is compiled for another platform"),
        (Target("cuda", split=True), "cuda", True, None),
        (Target("cuda", split=True), "cuda", False, "XLA cannot split this kernel over devices"),
        (Target("cuda", split=True, partly=True), "cuda", True, "make all of them manual"),
    ],
)
def test_a_kernel_is_refused_with_the_reason(target, platform, divisible, reason):
    found = refusal(target, platform, divisible=divisible)
    assert (found is None) == (reason is None)
    assert reason is None or reason in found


@pytest.mark.parametrize("op", [attention, norm], ids=["attention", "norm"])
def test_no_module_of_a_backend_hides_a_function_of_it_when_it_is_imported_late(op):
    packages = [pkgutil.resolve_name(f"{op.__name__}.{m.name}") for m in pkgutil.iter_modules(op.__path__) if m.ispkg]
    assert len(packages) >= 3
    for package in packages:
        assert not set(package.__all__) & {module.name for module in pkgutil.iter_modules(package.__path__)}
