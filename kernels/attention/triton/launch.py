"""The pointers and numbers of a call as the kernels receive them, and their launches."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from ... import _triton
from ..problem import ALiBi, Extras, Setting
from . import tiling
from .terms import strides, terms_of
from .tiling import Tile, padded

call = _triton.call


@dataclasses.dataclass(frozen=True)
class Launch(_triton.Launch):
    """A launch with the compile-time arguments `sizes`, by name."""

    sizes: dict[str, Any]
    warps: int
    stages: int
    package: ClassVar[str] = "attention.triton"


class Problem:
    """The pointers and numbers that the kernels of a pass share.

    `sizes` are heads, query heads of a key head, q_seq, kv_seq, head_dim, v_head_dim.
    """

    def __init__(self, q, k, v, extras: Extras, setting: Setting):
        self.batch, q_seq, heads, dim = q.shape
        self.sizes = (heads, heads // k.shape[2], q_seq, k.shape[1], dim, v.shape[3])
        self.dtype, self.extras = q.dtype, extras
        terms = terms_of(extras.mask)
        bias, alibi = jnp.zeros(1, jnp.float32), isinstance(extras.bias, ALiBi)
        slopes, offset, seeds = jnp.zeros(1, jnp.float32), jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32)
        at_bias, at_alibi, drop = (0,) * 5, (0,) * 3, (0,) * 3
        if isinstance(extras.bias, ALiBi):
            slopes, offset = extras.bias.slopes.astype(jnp.float32), extras.bias.offset.astype(jnp.int32)
            slopes = jnp.broadcast_to(slopes, (slopes.shape[0], heads))
            at_alibi = (1, heads if slopes.shape[0] > 1 else 0, int(offset.shape[0] > 1))
        elif extras.bias is not None:
            bias, at_bias = extras.bias, (1, *strides(extras.bias.shape))
        if extras.seeds is not None:
            seeds = extras.seeds
            drop = (1, heads if seeds.shape[0] > 1 else 0, round(setting.dropout_rate * 2**24))
        self.alibi = alibi
        self.pointers = [bias, slopes, offset, seeds, terms.table, terms.dense]
        self._numbers = {
            "SIZES": self.sizes,
            "SCALE": setting.scale,
            "SOFT_CAP": setting.soft_cap or 0.0,
            "BIAS": at_bias,
            "ALIBI": at_alibi,
            "DROPOUT": drop,
            "SURVIVAL": 1.0 / (1.0 - setting.dropout_rate) if drop[0] else 1.0,
            "TERMS": terms.code,
            # Three products of tensor cores come close to one of float32.
            "PRECISION": "tf32x3" if q.dtype == jnp.float32 else "ieee",
            "BLOCK_DIM": padded(dim),
            "BLOCK_V": padded(v.shape[3]),
        }

    def tile(self, kernel: str) -> Tile:
        """The tile of a kernel, by its name in `tiling`."""
        return tiling.tile_of(kernel, max(self.sizes[4:]), self.dtype, tiling.capability())

    def launch(self, module: str, kernel: str, outputs, grid: int, tile: Tile, **more: Any) -> Launch:
        """`grid` programs with the numbers of the problem, the tile and `more`."""
        sizes = self._numbers | {"BLOCK_Q": tile.q, "BLOCK_K": tile.k} | more
        return Launch(module, kernel, tuple(outputs), grid, sizes, tile.warps, tile.stages)
