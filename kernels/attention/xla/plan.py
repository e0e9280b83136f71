"""How the two passes are cut into tiles."""

import dataclasses

# The sides of a tile, (rows, keys), under a mask and without one. A small tile wastes less along a mask's edge; a large one keeps two cores
# busy in one product.
LANES = 4
FORWARD_TILE, FORWARD_TILE_OPEN = (256, 256), (1024, 1024)
BACKWARD_TILE, BACKWARD_TILE_OPEN = (256, 256), (512, 512)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes of one pass. `q_block` counts queries of one head; a tile has `repeat` times as many rows."""

    batch: int
    kv_heads: int
    repeat: int
    q_seq: int
    kv_seq: int
    q_block: int
    kv_block: int


def make_plan(q, k, tile: tuple[int, int]) -> Plan:
    repeat = q.shape[1] // k.shape[1]

    def block(seq: int, most: int) -> int:
        count = -(-seq // most)
        size = -(-seq // count)
        return size if count == 1 else -(-size // 16) * 16

    return Plan(
        q.shape[0], k.shape[1], repeat, q.shape[2], k.shape[2], block(q.shape[2], max(16, tile[0] // repeat)), block(k.shape[2], tile[1])
    )
