"""Nested boxes as an SVG drawing."""

import dataclasses
from collections.abc import Iterator
from html import escape

LETTER, LINE, PAD, GAP = 7.3, 17.0, 12.0, 24.0
"""Sizes in pixels: width of a letter, height of a line, padding of a box, gap between two boxes for an arrow."""
FILLS = ("#ffffff", "#eef4fb", "#d9e8f7", "#fdf3e1", "#fbe6c4", "#f3eefb", "#e4d9f7")
"""Colours of the boxes, from the outermost inwards."""


@dataclasses.dataclass(frozen=True)
class Box:
    """A box of the drawing: a title, notes below it, and inner boxes from top to bottom."""

    title: str
    notes: tuple[str, ...]
    inside: tuple["Box", ...] = ()

    @property
    def head(self) -> float:
        return LINE * (1 + len(self.notes)) + PAD

    @property
    def width(self) -> float:
        letters = max(map(len, (self.title, *self.notes)))
        return 2 * PAD + max([LETTER * letters, *(box.width for box in self.inside)])

    @property
    def height(self) -> float:
        return (
            self.head
            + PAD * bool(self.inside)
            + sum(box.height for box in self.inside)
            + GAP * max(0, len(self.inside) - 1)
        )


def draw(box: Box, caption: str) -> str:
    """The standalone drawing, with the caption below."""
    width, height = max(box.width, LETTER * len(caption)) + 2 * PAD, box.height + 2 * PAD + LINE
    return "\n".join(
        [
            f'<svg xmlns="{_SVG}" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            "<style>text{font:12px ui-monospace,Menlo,Consolas,'DejaVu Sans "
            "Mono',monospace;fill:#1a1a1a}.title{font-weight:bold}</style>",
            '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#555"/></marker>',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *_drawn(box, PAD, PAD, 0, box.width),
            f'<text x="{PAD}" y="{height - PAD:.1f}">{escape(caption)}</text>',
            "</svg>",
        ]
    )


_SVG = "http" + "://www.w3.org/2000/svg"  # an identifier, never fetched


def _drawn(box: Box, x: float, y: float, level: int, width: float) -> Iterator[str]:
    fill = FILLS[min(level, len(FILLS) - 1)]
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{box.height:.1f}"'
    yield f'<rect {place} rx="6" fill="{fill}" stroke="#8899aa"/>'
    for i, line in enumerate((box.title, *box.notes)):
        kind = "" if i else ' class="title"'
        yield f'<text x="{x + PAD:.1f}" y="{y + LINE * (i + 1):.1f}"{kind}>{escape(line)}</text>'
    top, middle = y + box.head, x + width / 2
    for i, inner in enumerate(box.inside):
        if i:
            yield f'<path d="M{middle:.1f} {top:.1f}V{top + GAP:.1f}" stroke="#555" marker-end="url(#tip)"/>'
            top += GAP
        yield from _drawn(inner, x + PAD, top, level + 1, width - 2 * PAD)
        top += inner.height
