"""Random changes of training images on the host: a function of the seed, the step and the place in the batch alone.

All take and give uint8 images `(n, height, width, channels)` and, for each of them, numbers drawn from [0, 1). What
follows PIL and torchvision in name follows them in meaning: the pixel arithmetic is PIL's own.

Source: random resized crop, Szegedy et al., arXiv:1409.4842; RandAugment, Cubuk et al., arXiv:1909.13719, with the
ranges of torchvision's.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, UInt8

from ..._errors import DataError
from ...config.data import AugmentConfig
from ..feed.draws import uniforms
from ..feed.order import Part
from .dataset import Dataset

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Images = UInt8[np.ndarray, "n height width channels"]
Draws = Float64[np.ndarray, "n draws"]

_TRIES = 10  # windows that a resized crop draws before it takes the largest one in the middle
_BINS = 31  # of RandAugment's magnitude
_FLIP, _CROP, _JITTER, _RAND = range(4)  # purposes of the drawn numbers


@dataclasses.dataclass(frozen=True)
class Augment:
    """The changes that a config asks for, in the order crop, mirror image, RandAugment, colours.

    Raises:
        DataError: colours are to change in images that have fewer than 256 levels.
    """

    config: AugmentConfig
    seed: int

    @classmethod
    def of(cls, config: AugmentConfig, seed: int, dataset: Dataset) -> "Augment":
        if config.colours and dataset.levels != 256:
            hint = "leave --data.augment.brightness, contrast, saturation, hue and operations out"
            raise DataError(dataset.name, "256 grey levels, to change colours", f"{dataset.levels}", hint)
        return cls(config, seed)

    def __call__(self, images: Images, part: Part) -> Images:
        config = self.config
        draw = lambda purpose, count: uniforms(self.seed, part.step, part.index, count, purpose)
        if config.crop == "padded":
            images = padded_crop(images, draw(_CROP, 2), config.pad, config.padding)
        elif config.crop == "resized":
            images = resized_crop(images, draw(_CROP, 4 * _TRIES), config.smallest)
        if config.flip:
            images = mirror(images, draw(_FLIP, 1))
        if config.operations:
            images = rand_augment(images, draw(_RAND, 2 * config.operations), config.magnitude)
        if config.jitter:
            images = colour_jitter(
                images, draw(_JITTER, 8), config.brightness, config.contrast, config.saturation, config.hue
            )
        return images


def mirror(images: Images, draws: Draws) -> Images:
    """Left and right exchanged in about half of the images."""
    return np.where(draws[:, :1, None, None] < 0.5, images[:, :, ::-1], images)


def centre_crop(images: Images, height: int, width: int) -> UInt8[np.ndarray, "n _height _width channels"]:
    """The middle of each image.

    Raises:
        ValueError: it is larger than the images.
    """
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    if top < 0 or left < 0 or height < 1 or width < 1:
        raise ValueError(
            f"height and width must be from 1 to {images.shape[1:3]}, those of the images: got {(height, width)}"
        )
    return images[:, top : top + height, left : left + width]


def padded_crop(images: Images, draws: Draws, pad: int, padding: str) -> Images:
    """A window of the original size, anywhere within the image with `pad` pixels around it: black (`zeros`) or mirrored
    (`reflect`).
    """
    count, height, width, _ = images.shape
    around = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    larger = np.pad(images, around, mode="reflect") if padding == "reflect" else np.pad(images, around)
    corners = (draws[:, :2] * (2 * pad + 1)).astype(int)
    return np.stack(
        [larger[i, top : top + height, left : left + width] for i, (top, left) in zip(range(count), corners)]
    )


def resized_crop(images: Images, draws: Draws, smallest: float, stretch: float = 4 / 3) -> Images:
    """A window of `smallest` to all of the area and sides of 1 : `stretch` at most, brought to the original size
    (bilinear).
    """
    from PIL import Image

    def one(image: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        top, left, bottom, right = _window(height, width, numbers.reshape(-1, 4), smallest, stretch)
        box = (left, top, right, bottom)
        return _pixels(_picture(image).resize((width, height), Image.Resampling.BILINEAR, box=box), image)

    return _each(one, images, draws)


def _window(height: int, width: int, tries: np.ndarray, smallest: float, stretch: float) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of the first window that fits, else of the largest one in the middle within the
    stretch.
    """
    for area, shape, down, along in tries:
        pixels = height * width * (smallest + (1 - smallest) * area)
        ratio = math.exp(math.log(stretch) * (2 * shape - 1))
        wide, high = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 1 <= wide <= width and 1 <= high <= height:
            top, left = int(down * (height - high + 1)), int(along * (width - wide + 1))
            return top, left, top + high, left + wide
    high, wide = min(height, round(width * stretch)), min(width, round(height * stretch))
    top, left = (height - high) // 2, (width - wide) // 2
    return top, left, top + high, left + wide


def colour_jitter(
    images: Images, draws: Draws, brightness: float, contrast: float, saturation: float, hue: float
) -> Images:
    """Each quality changed by a factor from 1 - x to 1 + x, the hue turned by up to `hue` of the circle, in an order of
    its own.
    """
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}

    def one(image: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        picture = _picture(image)
        changes: list[Callable[[Picture], Picture]] = [
            functools.partial(_enhanced, name=name, factor=1 + x * (2 * u - 1))
            for (name, x), u in zip(strengths.items(), numbers)
        ]
        changes.append(functools.partial(_turned, turn=hue * (2 * numbers[3] - 1)))
        for index in np.argsort(numbers[4:]):
            picture = changes[index](picture)
        return _pixels(picture, image)

    return _each(one, images, draws)


def rand_augment(images: Images, draws: Draws, magnitude: int) -> Images:
    """Operations one after the other, one for every two draws, each of `magnitude` from 0 to 30."""

    def one(image: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        picture = _picture(image)
        for which, sign in numbers.reshape(-1, 2):
            name = OPERATIONS[int(which * len(OPERATIONS))]
            picture = operate(picture, name, magnitude, 1 if sign < 0.5 else -1)
        return _pixels(picture, image)

    return _each(one, images, draws)


# In RandAugment's order; magnitudes as torchvision's: a share of the largest effect, in either direction where there
# are two.
OPERATIONS = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness"),
    *("saturation", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize"),
)


def operate(picture: "Picture", name: str, magnitude: int, sign: int) -> "Picture":
    """One of `OPERATIONS`; the plane is filled up with black."""
    from PIL import Image, ImageOps

    share = magnitude / (_BINS - 1)
    width, height = picture.size
    moves = {
        "shear_x": (1, 0.3 * share * sign, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.3 * share * sign, 1, 0),
        "translate_x": (1, 0, int(150 / 331 * width * share) * sign, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, int(150 / 331 * height * share) * sign),
    }
    if name in moves:
        return picture.transform(picture.size, Image.Transform.AFFINE, moves[name])
    if name == "rotate":
        return picture.rotate(30 * share * sign)
    if name in ("brightness", "saturation", "contrast", "sharpness"):
        return _enhanced(picture, name, 1 + 0.9 * share * sign)
    levels: dict[str, Callable[[], Picture]] = {
        "identity": lambda: picture,
        "posterize": lambda: ImageOps.posterize(picture, 8 - round(4 * share)),
        "solarize": lambda: ImageOps.solarize(picture, math.ceil(255 * (1 - share))),
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
    }
    return levels[name]()


def _enhanced(picture: "Picture", name: str, factor: float) -> "Picture":
    from PIL import ImageEnhance

    kinds = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
        "sharpness": ImageEnhance.Sharpness,
    }
    return picture if factor == 1 else kinds[name](picture).enhance(factor)


def _turned(picture: "Picture", turn: float) -> "Picture":
    from PIL import Image

    if picture.mode == "L" or turn == 0:
        return picture
    hue, saturation, value = picture.convert("HSV").split()
    turned = Image.fromarray(((np.asarray(hue).astype(int) + round(turn * 255)) % 256).astype(np.uint8))
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _each(one: Callable[[np.ndarray, np.ndarray], np.ndarray], images: np.ndarray, draws: np.ndarray) -> np.ndarray:
    return np.stack([one(image, numbers) for image, numbers in zip(images, draws)])


def _picture(image: np.ndarray) -> "Picture":
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else np.ascontiguousarray(image))


def _pixels(picture: "Picture", like: np.ndarray) -> np.ndarray:
    return np.asarray(picture).reshape(like.shape)
