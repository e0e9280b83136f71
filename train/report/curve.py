"""Loss curve of a run as SVG, in light and dark colours."""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 760, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 84, 48, 44

NAMESPACE = ":".join(("http", "//www.w3.org/2000/svg"))  # name of the format, never fetched

STYLE = """
  .ground { fill: #ffffff } .grid { stroke: #e4e7ec; stroke-width: 1 } .axis { fill: #667085; font-size: 12px }
  .title { fill: #101828; font-size: 15px; font-weight: 600 } .note { fill: #2563eb; font-size: 13px; font-weight: 600 }
  .raw { stroke: #2563eb; stroke-opacity: .28; stroke-width: 1.2; fill: none }
  .smooth { stroke: #2563eb; stroke-width: 2.2; fill: none }
  .dot { fill: #2563eb }
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } .grid { stroke: #232a35 } .axis { fill: #98a2b3 } .title { fill: #f2f4f7 }
    .note, .dot { fill: #7cb0ff } .raw, .smooth { stroke: #7cb0ff }
  }
"""


def loss_curve(points: Sequence[tuple[int, float]], title: str) -> str:
    """SVG of a loss by step, raw (thin) and smoothed (thick); on a logarithmic scale where it falls to less than a
    tenth.

    Args:
        points: step and loss; those that are not finite are left out.
        title: above it.
    """
    points = [(step, loss) for step, loss in points if math.isfinite(loss)] or [(0, 0.0)]
    losses = [loss for _, loss in points]
    log = min(losses) > 0 and max(losses) > 10 * min(losses)
    scale = math.log10 if log else float
    low, high = scale(min(losses)), scale(max(losses))
    pad = 0.06 * (high - low) or 0.5
    low, high = low - pad, high + pad
    last = max(points[-1][0], 1)
    x = lambda step: LEFT + (WIDTH - LEFT - RIGHT) * step / last
    y = lambda loss: TOP + (HEIGHT - TOP - BOTTOM) * (high - scale(loss)) / (high - low)
    trend = smoothed(points)
    parts = [_heading(title)]
    for value in _ticks_of(low, high, log):
        parts.append(_rule(y(value), _number(value)))
    for step in ticks(0.0, float(last), 6):
        place = f'x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 20}"'
        parts.append(f'<text class="axis" {place} text-anchor="middle">{_number(step)}</text>')
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">step</text>')
    for name, curve in ("raw", points), ("smooth", trend):
        line = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in curve)
        parts.append(f'<polyline class="{name}" points="{line}" stroke-linejoin="round"/>')
    end = x(trend[-1][0]), y(trend[-1][1])
    parts.append(f'<circle class="dot" cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="3.5"/>')
    parts.append(f'<text class="note" x="{end[0] + 9:.1f}" y="{end[1] + 4.5:.1f}">{trend[-1][1]:.4g}</text>')
    return "\n".join([*parts, "</svg>", ""])


def smoothed(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The mean around each point, over a twentieth of the curve."""
    losses, reach, result = [loss for _, loss in points], len(points) // 40, []
    for i, (step, _) in enumerate(points):
        near = losses[max(i - reach, 0) : i + reach + 1]
        result.append((step, sum(near) / len(near)))
    return result


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from low to high, about so many: multiples of 1, 2 or 5 times a power of ten."""
    unit = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor * count >= high - low)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _ticks_of(low: float, high: float, log: bool) -> list[float]:
    if not log:
        return ticks(low, high, 5)
    decades = range(math.floor(low), math.ceil(high) + 1)
    return [
        factor * 10.0**decade
        for decade in decades
        for factor in (1, 2, 5)
        if low <= math.log10(factor * 10.0**decade) <= high
    ]


def _heading(title: str) -> str:
    return (
        f'<svg xmlns="{NAMESPACE}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">\n'
        f'<style>{STYLE}</style>\n<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="8"/>\n'
        f'<text class="title" x="{LEFT - 40}" y="28">{escape(title)}</text>'
    )


def _rule(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text class="axis" x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'


def _number(value: float) -> str:
    for size, suffix in (1e9, "G"), (1e6, "M"), (1e3, "k"):
        if value >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"
