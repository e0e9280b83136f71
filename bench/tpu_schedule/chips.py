"""Clocks, matrix units and memory of the TPU generations."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One core of a generation.

    `clock` is in Hz, `bandwidth` of main memory in bytes/s and per core, `matrix_units` arrays of `side` x `side`
    multipliers, each multiplying one row of bfloat16 per clock.
    """

    topology: str
    cores: int
    clock: float
    bandwidth: float
    matrix_units: int
    side: int

    @property
    def products(self) -> int:
        """Multiplications of bfloat16 per bundle."""
        return self.matrix_units * self.side**2


# Source: cloud.google.com/tpu/docs, pages "TPU v4", "v5e", "v5p" and "v6e": peak bfloat16 FLOP/s (275, 197, 459 and 918
# TFLOP/s), cores, matrix units and bandwidth of a chip. The clock is the peak over 2 * cores * products.
CHIPS = {
    "v4": Chip("v4:2x2x1", 2, 1.05e9, 1.23e12 / 2, 4, 128),
    "v5e": Chip("v5e:2x4", 1, 1.50e9, 0.82e12, 4, 128),
    "v5p": Chip("v5p:2x2x1", 2, 1.75e9, 2.76e12 / 2, 4, 128),
    "v6e": Chip("v6e:2x4", 1, 1.75e9, 1.64e12, 4, 256),
}
