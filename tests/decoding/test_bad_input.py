"""What samplers and losses of image tokens refuse, in one line before anything compiles, and ids of every type."""

import dataclasses

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import (
    ImageARConfig,
    ImageSampling,
    MAGEConfig,
    MaskedDecoding,
    MaskGITConfig,
    MaskRatio,
    MuseConfig,
    PartiConfig,
    Sampling,
)
from eqxgen.decoding import images, masked
from eqxgen.losses.image_ar import image_ar_loss
from eqxgen.losses.mage import Masks, draw_masks, mage_loss, shifted
from eqxgen.losses.masked import masked_loss
from eqxgen.models import MAGE, ImageAR, MaskGIT, Muse, Parti

pytestmark = pytest.mark.usefixtures("unchecked")
KEY, TOKENS, CODES = jr.key(0), 16, 256
SIZES = {"dim": 16, "depth": 1, "heads": 2, "hidden_dim": 16}
DECODER = {f"decoder_{name}": value for name, value in SIZES.items()}
MASKED = MaskGIT(TOKENS, CODES, 2, MaskGITConfig(**SIZES), key=KEY)
HIDDEN = MAGE(TOKENS, CODES, 2, MAGEConfig(**SIZES, **DECODER), key=KEY)
ROWS = ImageAR((4, 4), CODES, 2, ImageARConfig(**SIZES, targets=True), key=KEY)
TEXTS = Parti((4, 4), CODES, 9, PartiConfig(16, 1, heads=2, head_dim=8, hidden_dim=16, decoder_depth=1), key=KEY)
IDS, FIRST = jnp.zeros(TOKENS, jnp.int32), jnp.arange(TOKENS) < 4
FOUR, TWO = MaskedDecoding(steps=4), ImageSampling(candidates=2)


def fill(ids=IDS, unknown=FIRST, options=FOUR, **rest):
    return masked.generate(MASKED, 1, options, ids=ids, unknown=unknown, key=KEY, **rest)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "int32"])
def test_known_tokens_stay_whatever_integers_they_are_stored_as(kind):
    ids = np.arange(TOKENS).astype(kind)
    found = fill(ids)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found[4:], ids[4:])
    np.testing.assert_array_equal(found, fill(jnp.asarray(ids, jnp.int32)))


CASES = {
    "ids of another number": (lambda: fill(IDS[:15], FIRST[:15]), r"ids must be \(tokens=16,\): got shape \(15,\)"),
    "a mask of integers": (lambda: fill(unknown=FIRST.astype(int)), "unknown must be booleans: got int32"),
    "a mask of numbers": (lambda: fill(unknown=FIRST * 1.0), "unknown must be booleans: got float32"),
    "a mask of another size": (lambda: fill(unknown=FIRST[:4]), "unknown must have the shape of tokens: got "),
    "a grid": (lambda: fill(grid=(3, 4)), "grid must have a cell for each of 16 tokens: got 3 x 4"),
    "a side": (lambda: fill(grid=16), "grid must be rows and columns: got 16"),
    "options": (lambda: fill(options={"steps": 4}), "options must be a MaskedDecoding or MaskedRules: got dict"),
    "a critic": (lambda: fill(critic=lambda ids: jnp.sum(ids) * 1.0), r"critic must give a score .* got shape \(\)"),
    "options of another sampler": (
        lambda: images.generate(ROWS, 1, FOUR, key=KEY),
        "options must be an ImageSampling or ImageRules: got MaskedDecoding",
    ),
    "a scorer": (
        lambda: images.generate(ROWS, 1, TWO, scorer=lambda ids, _: ids * 1.0, key=KEY),
        r"scorer must give one number: got shape \(16,\)",
    ),
    "a scorer of one": (
        lambda: images.generate(ROWS, 1, scorer=lambda ids, _: 1.0, key=KEY),
        "scorer needs candidates, .* got 1",
    ),
    "a short order": (lambda: ROWS(IDS, 1, order=jnp.arange(15)), r"order must be \(tokens=16,\): got shape \(15,\)"),
    "an order that repeats": (lambda: ROWS(IDS, 1, order=IDS), r"order must be a permutation of 16 positions: got \[0,"),
    "an order out of range": (lambda: ROWS(IDS, 1, order=jnp.arange(1, 17)), r"order must be in \[0, tokens=16\): got"),
    "an order of numbers": (lambda: ROWS(IDS, 1, order=jnp.arange(16.0)), "order must be integers: got float32"),
    "dropout": (lambda: masked_loss(MASKED, IDS, 1, label_dropout=2, key=KEY), "label_dropout must be a probability.* 2"),
    "smoothing": (lambda: masked_loss(MASKED, IDS, 1, label_smoothing=1.0, key=KEY), r"label_smoothing must be in \[0, 1\)"),
    "the mask's id": (lambda: masked_loss(MASKED, IDS + CODES, 1, key=KEY), r"ids must be in \[0, codes=256\): got"),
    "smoothing of MAGE": (lambda: mage_loss(HIDDEN, IDS, 1, label_smoothing=3, key=KEY), "label_smoothing must be in"),
    "dropout of MAGE": (lambda: mage_loss(HIDDEN, IDS, 1, label_dropout=float("nan"), key=KEY), "label_dropout must be"),
    "a label of MAGE": (lambda: mage_loss(HIDDEN, IDS, 9, key=KEY), r"label must be in \[0, classes \+ 1 null=3\): got"),
    "labels of MAGE": (lambda: mage_loss(HIDDEN, IDS, jnp.zeros(2, int), key=KEY), r"label must be \(\): got shape \(2,\)"),
    "ids of MAGE": (lambda: mage_loss(HIDDEN, IDS[:15], 1, key=KEY), r"ids must be \(tokens=16,\): got shape \(15,\)"),
    "no key of MAGE": (lambda: mage_loss(HIDDEN, IDS, 1), "key must be given where masks or null labels are drawn: got None"),
    "masks of MAGE": (
        lambda: mage_loss(HIDDEN, IDS, 1, Masks(jnp.arange(4), FIRST[:8]), label_dropout=0.0),
        r"masks.masked must be \(tokens=16,\): got shape \(8,\)",
    ),
    "one side of a model": (
        lambda: ImageAR(4, CODES, 2, ImageARConfig(**SIZES), key=KEY),
        "grid must be rows and columns: got 4",
    ),
    "three sides of a model": (
        lambda: Muse((4, 4, 4), CODES, 9, MuseConfig(16, 1, heads=2, head_dim=8, hidden_dim=16), key=KEY),
        r"grid must be rows and columns: got \(4, 4, 4\)",
    ),
    "low tokens": (
        lambda: Muse((4, 4), CODES, 9, MuseConfig(16, 1, heads=2, head_dim=8, hidden_dim=16), low=4, key=KEY),
        "low must be tokens and codes: got 4",
    ),
    "ids of a likelihood": (lambda: images.evidence(ROWS, IDS * 1.0, 1), "ids must be integers: got float32"),
    "no tokens": (lambda: draw_masks(0, key=KEY), "tokens must be an integer of at least 1: got 0"),
    "dropout of AR": (lambda: image_ar_loss(ROWS, IDS, 1, label_dropout=-1, key=KEY), "label_dropout must be a probability"),
    "shuffling": (lambda: image_ar_loss(ROWS, IDS, 1, shuffled=3.0, key=KEY), "shuffled must be a probability.* 3.0"),
    "shuffling of Parti": (
        lambda: image_ar_loss(TEXTS, IDS, jnp.zeros(3, int), shuffled=0.5, key=KEY),
        "shuffled must be None for a Parti, which takes no order: got 0.5",
    ),
    "a reach": (lambda: shifted(IDS, (4, 4), -1, key=KEY), "shift must be an integer of at least 0: got -1"),
    "a reach of a grid": (lambda: shifted(IDS, (4, 4), 4, key=KEY), "shift must be below the shorter side .* 4 x 4 tokens: got 4"),
    "a view's grid": (lambda: shifted(IDS, (3, 4), 1, key=KEY), "grid must have a cell for each of 16 tokens: got 3 x 4"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_a_sampler_or_a_loss_cannot_take_is_one_line(case):
    call, message = CASES[case]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


FIELDS = [
    (ImageSampling, {"candidates": 1.5}, "decode.candidates must be an integer: got 1.5"),
    (ImageSampling, {"candidates": "2"}, "decode.candidates must be an integer: got '2'"),
    (ImageSampling, {"top_k": 2.5}, "decode.top_k must be an integer: got 2.5"),
    (ImageSampling, {"guidance": None}, "decode.guidance must be a number: got None"),
    (ImageSampling, {"guidance_from": True}, "decode.guidance_from must be an integer: got True"),
    (MaskedDecoding, {"steps": 2.0}, "decode.steps must be an integer: got 2.0"),
    (MaskedDecoding, {"edit": None}, "decode.edit must be a number: got None"),
    (MaskedDecoding, {"schedule": 3}, "decode.schedule must be a string: got 3"),
    (MaskRatio, {"mean": "a"}, "mask.mean must be a number: got 'a'"),
    (Sampling, {"top_k": 2.5}, "top_k must be an integer: got 2.5"),
    (ImageARConfig, {"depth": True}, "model.depth must be an integer: got True"),
    (MaskGITConfig, {"dim": 32.5}, "model.dim must be an integer: got 32.5"),
    (MaskGITConfig, {"dim": "a"}, "model.dim must be an integer: got 'a'"),
]


@pytest.mark.parametrize(("kind", "fields", "message"), FIELDS)
def test_a_field_of_another_type_is_one_line(kind, fields, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(**fields)


def test_integers_of_numpy_are_integers():
    assert MaskedDecoding(steps=np.int64(4)) == FOUR
    assert dataclasses.replace(TWO, guidance=np.float32(2)).guidance == 2


@pytest.mark.parametrize("call", ["critic", "scorer"])
def test_numbers_of_a_critic_or_a_scorer_that_are_none_are_an_error(call):
    options = {"critic": lambda ids: jnp.full(TOKENS, jnp.nan), "scorer": lambda ids, _: jnp.nan * jnp.sum(ids)}
    draw = fill if call == "critic" else lambda **given: images.generate(ROWS, 1, TWO, **given, key=KEY)
    with pytest.raises(FloatingPointError, match="not numbers"):
        draw(**{call: options[call]})
