"""Pictures of log-mel spectrograms."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

# Black, violet, red, orange, pale yellow: the brightness rises throughout.
_STOPS = np.array([[0, 0, 4], [80, 18, 123], [182, 54, 121], [251, 136, 97], [252, 253, 191]], np.float64)
GAP = 4
"""Pixels between panels."""
HEIGHT = 120
"""Pixels of a panel at least."""

Colour = UInt8[np.ndarray, "height width 3"]


def coloured(mel: Float[np.ndarray, "frames mels"], low: float, high: float) -> Colour:
    """A spectrogram with time to the right and frequency upwards; values from low to high become brighter."""
    shares = np.clip((mel.T[::-1].astype(np.float64) - low) / max(high - low, 1e-6), 0, 1)
    places = np.linspace(0, 1, len(_STOPS))
    return np.stack([np.interp(shares, places, stop) for stop in _STOPS.T], axis=-1).round().astype(np.uint8)


def sheet(rows: Sequence[Sequence[Float[np.ndarray, "_frames _mels"]]]) -> Colour:
    """Spectrograms on white, those of a row one above the other, rows side by side; all in one scale of colours."""
    high = max(float(mel.max()) for row in rows for mel in row)
    low = min(float(mel.min()) for row in rows for mel in row)
    scale = max(1, -(-HEIGHT // rows[0][0].shape[1]))
    panels = [[coloured(mel, low, high).repeat(scale, 0).repeat(scale, 1) for mel in row] for row in rows]
    tall = max(sum(panel.shape[0] + GAP for panel in row) for row in panels) - GAP
    wide = sum(max(panel.shape[1] for panel in row) + GAP for row in panels) - GAP
    canvas, left = np.full((tall, wide, 3), 255, np.uint8), 0
    for row in panels:
        top = 0
        for panel in row:
            canvas[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
            top += panel.shape[0] + GAP
        left += max(panel.shape[1] for panel in row) + GAP
    return canvas
