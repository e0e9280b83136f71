"""Affine maps, feed-forward layers, reparametrised layers and quantisers against equinox.nn, torch and
vector-quantize-pytorch.
"""

import equinox as eqx
import jax
import jax.random as jr

from bench.layers.contenders import Race, batched, each_token, normal, tensor, torch_layers
from eqxgen import nn
from eqxgen.configs import VAR_SCALES
from tests.oracles.var import make as published

KEY = jr.key(0)
TOKENS = (16, 64, 256)


def tokens(ours, equinox=None, torch=None) -> Race:
    """Layers from functions without arguments, on the same tokens; equinox.nn's are mapped over each."""
    return Race(
        lambda: (batched, ours(), normal(*TOKENS)),
        equinox and (lambda: (each_token, equinox(), normal(*TOKENS))),
        torch and (lambda: (torch(torch_layers()), tensor(normal(*TOKENS).reshape(-1, TOKENS[-1])))),
    )


class TwoGates(eqx.Module):
    """SwiGLU of three `equinox.nn.Linear`."""

    up: eqx.nn.Linear
    gate: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, dim: int, hidden_dim: int):
        shapes = ((dim, hidden_dim), (dim, hidden_dim), (hidden_dim, dim))
        self.up, self.gate, self.down = (eqx.nn.Linear(*shape, use_bias=False, key=KEY) for shape in shapes)

    def __call__(self, x):
        return self.down(self.up(x) * jax.nn.silu(self.gate(x)))


def two_gates_of_torch(torch):
    class Gated(torch.Module):
        def __init__(self):
            super().__init__()
            shapes = ((256, 768), (256, 768), (768, 256))
            self.up, self.gate, self.down = (torch.Linear(*shape, bias=False) for shape in shapes)

        def forward(self, x):
            return self.down(self.up(x) * torch.functional.silu(self.gate(x)))

    return Gated()


def spectral():
    """A layer with a state, on tokens that all see the same."""
    layer = nn.SpectralNorm(nn.Projection(256, 256, key=KEY))
    state = layer.init_state()
    mapped = jax.vmap(lambda layer, x, state: layer(x, state), in_axes=(None, 0, None), out_axes=(0, None))
    return lambda layer, x: mapped(layer, x.reshape(-1, 256), state)[0], layer, normal(*TOKENS)


def spectral_of_equinox():
    layer, state = eqx.nn.make_with_state(eqx.nn.SpectralNorm)(eqx.nn.Linear(256, 256, key=KEY), "weight", key=KEY)
    mapped = jax.vmap(lambda layer, x, state: layer(x, state), in_axes=(None, 0, None), out_axes=(0, None))
    return lambda layer, x: mapped(layer, x.reshape(-1, 256), state)[0], layer, normal(*TOKENS)


def vectors(quantizer, x):
    return jax.vmap(lambda x: quantizer(x).vectors)(x)


def quantizer_of_torch(**options):
    import vector_quantize_pytorch as library

    layer = library.VectorQuantize(dim=256, codebook_size=1024, ema_update=False, **options)
    return layer, tensor(normal(*TOKENS))


def scales_of_torch():
    torch = torch_layers()

    class Sum(torch.Module):
        def __init__(self):
            super().__init__()
            self.quantizer = published(VAR_SCALES, 32, 4, 1024).float()

        def forward(self, f):
            return self.quantizer(f)[1]

    return Sum(), tensor(normal(4, 16, 16, 32))


RACES: dict[str, Race] = {
    "Projection": tokens(
        lambda: nn.Projection(256, 256, key=KEY),
        lambda: eqx.nn.Linear(256, 256, key=KEY),
        lambda torch: torch.Linear(256, 256),
    ),
    "MLP, relu": tokens(
        lambda: nn.MLP(256, activation="relu", key=KEY),
        lambda: eqx.nn.MLP(256, 256, 1024, 1, key=KEY),
        lambda torch: torch.Sequential(torch.Linear(256, 1024), torch.ReLU(), torch.Linear(1024, 256)),
    ),
    "GLU": tokens(lambda: nn.GLU(256, key=KEY), lambda: TwoGates(256, 768), two_gates_of_torch),
    "Activation gelu": tokens(lambda: nn.Activation("gelu"), None, lambda torch: torch.GELU()),
    "Activation gelu_tanh": tokens(
        lambda: nn.Activation("gelu_tanh"), None, lambda torch: torch.GELU(approximate="tanh")
    ),
    "Activation swish": tokens(lambda: nn.Activation("swish"), None, lambda torch: torch.SiLU()),
    "WeightNorm": tokens(
        lambda: nn.WeightNorm(nn.Projection(256, 256, key=KEY)),
        lambda: eqx.nn.WeightNorm(eqx.nn.Linear(256, 256, key=KEY)),
        lambda torch: torch.utils.parametrizations.weight_norm(torch.Linear(256, 256)),
    ),
    "SpectralNorm": Race(
        spectral,
        spectral_of_equinox,
        lambda: (
            torch_layers().utils.parametrizations.spectral_norm(torch_layers().Linear(256, 256)),
            tensor(normal(*TOKENS).reshape(-1, 256)),
        ),
    ),
    "VectorQuantizer": Race(
        lambda: (vectors, nn.VectorQuantizer(1024, 256, key=KEY), normal(*TOKENS)),
        None,
        lambda: quantizer_of_torch(rotation_trick=False),
    ),
    "MultiScaleVQ": Race(
        lambda: (
            vectors,
            nn.MultiScaleVQ(nn.VectorQuantizer(1024, 32, key=KEY), VAR_SCALES, key=KEY),
            normal(4, 16, 16, 32),
        ),
        None,
        scales_of_torch,
    ),
}
