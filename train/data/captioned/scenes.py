"""Scenes of coloured digits on a grid of 3x3 cells, their captions, and the ones that are held out of training.

  "three red sevens in a row"      count, colour, digit, layout
  "a red 4 above a blue 9"         colours, digits, relation
  "a large green 5"                size, colour, digit

A caption has one picture up to handwriting: the digit and colour of every cell. A white digit has no colour in words.
Numbers are written as words or in figures, at random.
"""

import dataclasses
import functools
import hashlib
import itertools
import re

import numpy as np

SIDE = 3
"""Cells along each side of the grid."""
COLOURS = ("white", "red", "green", "blue", "yellow")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LAYOUTS = {"row": ((1, 0), (1, 1), (1, 2)), "column": ((0, 1), (1, 1), (2, 1)), "diagonal": ((0, 0), (1, 1), (2, 2))}
RELATIONS = {
    "above": ((0, 1), (2, 1)),
    "below": ((2, 1), (0, 1)),
    "left of": ((1, 0), (1, 2)),
    "right of": ((1, 2), (1, 0)),
}
SIZES = ("small", "large")
KINDS = ("count", "relation", "size")
HELD_OUT = 10
"""One of so many scenes of each kind is held out."""

Cell = tuple[int, str]
"""Digit and colour."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a caption says.

    Args:
        kind: one of KINDS.
        digits, colours: of one object, or of both of a relation.
        how: the layout, the relation or the size.
        count: digits of a layout.
    """

    kind: str
    digits: tuple[int, ...]
    colours: tuple[str, ...]
    how: str
    count: int = 1

    @property
    def large(self) -> bool:
        """One digit fills the canvas."""
        return self.how == "large"

    @property
    def cells(self) -> dict[tuple[int, int], Cell]:
        """Digit and colour by row and column; a large digit is in the middle."""
        objects = list(zip(self.digits, self.colours))
        if self.kind == "count":
            return dict.fromkeys(LAYOUTS[self.how][: self.count], objects[0])
        if self.kind == "relation":
            return dict(zip(RELATIONS[self.how], objects))
        return {(1, 1): objects[0]}

    @property
    def held_out(self) -> bool:
        """True for scenes that no training caption describes, by a hash of the picture: of two captions of one picture
        both are held out, or neither.
        """
        name = f"{self.large} {sorted(self.cells.items())}"
        return int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT == 0

    def caption(self, draw: int) -> str:
        """The words. Bit i of `draw` writes the i-th number in figures: the count, then the digits."""
        bits = [draw >> i & 1 for i in range(3)]
        names = [_digit(digit, figures=bool(bit)) for digit, bit in zip(self.digits, bits[1:])]
        each = [f"{_colour(colour)}{name}" for name, colour in zip(names, self.colours)]
        if self.kind == "count":
            count = str(self.count) if bits[0] else WORDS[self.count]
            return f"{count} {_plural(each[0])} in a {self.how}"
        if self.kind == "relation":
            return f"{_a(each[0])} {self.how} {_a(each[1])}"
        return f"a {self.how} {each[0]}"


@functools.cache
def scenes() -> tuple[Scene, ...]:
    """Every scene, in a fixed order."""
    objects = list(itertools.product(range(10), COLOURS))
    counts = itertools.product(objects, LAYOUTS, (2, 3))
    relations = itertools.product(objects, objects, RELATIONS)
    return (
        *(Scene("count", (digit,), (colour,), how, count) for (digit, colour), how, count in counts),
        *(Scene("relation", (a[0], b[0]), (a[1], b[1]), how) for a, b, how in relations if a != b),
        *(Scene("size", (digit,), (colour,), how) for (digit, colour), how in itertools.product(objects, SIZES)),
    )


@functools.cache
def _pools(held_out: bool) -> tuple[tuple[Scene, ...], ...]:
    """By kind, the scenes that are held out, or the others; each scene is hashed."""
    chosen = [scene for scene in scenes() if scene.held_out == held_out]
    return tuple(tuple(scene for scene in chosen if scene.kind == kind) for kind in KINDS)


def drawn(count: int, seed: int, *, held_out: bool) -> list[tuple[Scene, str]]:
    """Scenes and captions: kinds alike in number, scenes of a kind at random with replacement.

    Args:
        count: of scenes.
        seed: of the draws, which are the same on every machine.
        held_out: from the scenes that are held out, or from the others.
    """
    pools = _pools(held_out)
    raw = np.random.Philox(key=seed).random_raw(3 * count).reshape(count, 3)
    found = []
    for kind, place, draw in raw.tolist():
        pool = pools[kind % len(KINDS)]
        scene = pool[place % len(pool)]
        found.append((scene, scene.caption(draw)))
    return found


def parse(caption: str) -> Scene:
    """The scene of a caption.

    Raises:
        ValueError: the caption is none of the grammar.
    """
    words = caption.split()
    for pattern, kind in _PATTERNS:
        if match := pattern.fullmatch(" ".join(words)):
            scene = _scene(kind, match.groupdict())
            if any(scene.caption(draw) == " ".join(words) for draw in range(8)):
                return scene
    raise ValueError(
        f"caption must be such as 'three red sevens in a row', 'a red 4 above a blue 9' or 'a large 5': got {caption!r}"
    )


_COLOUR = "|".join(COLOURS[1:])
_NUMBER = "|".join((*WORDS, r"\d"))
_PATTERNS = [
    (
        re.compile(
            rf"(?P<count>two|three|2|3) (?:(?P<c0>{_COLOUR}) )?(?P<d0>{_NUMBER})e?s in a "
            rf"(?P<how>{'|'.join(LAYOUTS)})"
        ),
        "count",
    ),
    (
        re.compile(
            rf"an? (?:(?P<c0>{_COLOUR}) )?(?P<d0>{_NUMBER}) (?P<how>{'|'.join(RELATIONS)}) "
            rf"an? (?:(?P<c1>{_COLOUR}) )?(?P<d1>{_NUMBER})"
        ),
        "relation",
    ),
    (re.compile(rf"a (?P<how>{'|'.join(SIZES)}) (?:(?P<c0>{_COLOUR}) )?(?P<d0>{_NUMBER})"), "size"),
]


def _scene(kind: str, found: dict[str, str | None]) -> Scene:
    numbers = {word: i for i, word in enumerate(WORDS)} | {str(i): i for i in range(10)}
    of = range(2 if kind == "relation" else 1)
    digits = tuple(numbers[str(found[f"d{i}"])] for i in of)
    colours = tuple(found[f"c{i}"] or COLOURS[0] for i in of)
    return Scene(kind, digits, colours, str(found["how"]), numbers[str(found["count"])] if kind == "count" else 1)


def _digit(digit: int, *, figures: bool) -> str:
    return str(digit) if figures else WORDS[digit]


def _colour(colour: str) -> str:
    return "" if colour == COLOURS[0] else f"{colour} "


def _plural(name: str) -> str:
    return f"{name}es" if name.endswith(("x", "zero")) else f"{name}s"


def _a(name: str) -> str:
    return f"{'an' if name.startswith(('eight', '8')) else 'a'} {name}"
