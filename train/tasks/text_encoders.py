"""Frozen encoders of texts with their tokenizers: a published T5 or CLIP, or a run of `train.t5` or `train.clip`."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.random as jr
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Integer

from eqxgen.configs import T5_SIZES, T5_SIZES_V1_1, T5Config, TextTowerConfig
from eqxgen.models.clip import TextTower
from eqxgen.models.t5 import T5, T5Encoder
from eqxgen.models.text_conditional import FrozenText
from eqxgen.pretrained import named as family_named
from eqxgen.pretrained.family import kind_of
from eqxgen.pretrained.tokenizer import Tokenizer, open_tokenizer

from .._errors import UsageError, UserError
from .._files import read_json
from ..data.text.pair_vocabulary import END, PublishedPairs
from ..data.text.vocabulary import Vocabulary
from ..engine.recipes import Finished, named, recipe_of
from ..parallel import make_mesh, spec_of
from ..run.weights import digest
from .clip.opened import texts_of_run
from .clip.published import PublishedTexts
from .facts import CaptionFacts
from .language import vocabulary_of_run

FLAG = "--text-encoder"
RUNS = ("t5", "clip")
FAMILIES = {"t5": "t5", "clip": "clip", "openclip": "clip"}
"""Family by the model_type of a config.json."""
TOWERS = {"base-patch32": (512, 8), "base-patch16": (512, 8), "large-patch14": (768, 12)}
"""Width and heads of the text towers of OpenAI's models (Radford et al. 2021, table 20), by a folder's name."""
T5_IDS, CLIP_IDS = 32128, 49408
"""Ids of the published models."""
Net = T5Encoder | TextTower


class EncoderTexts(NamedTuple):
    """Texts by the tokenizer of an encoder.

    Attributes:
        ids: text -> ids without begin and end.
        end: id after the last token.
        begin: id before the first; None for none.
        size: number of ids; they are below it.
        sha256: of the tokenizer.
    """

    ids: Callable[[str], Integer[np.ndarray, " n"]]
    end: int
    begin: int | None
    size: int
    sha256: str

    def encode(self, text: str) -> Integer[np.ndarray, " n"]:
        """Ids of a text without begin and end.

        Raises:
            ValueError: the vocabulary lacks a part of it, or the end is within it.
        """
        ids = self.ids(text)
        if (ids == self.end).any():
            raise ValueError(
                f"text must be of the vocabulary, without the token of the end, id {self.end}: got {text!r:.60}"
            )
        return ids


class _Source(NamedTuple):
    """A folder with an encoder.

    Attributes:
        where: as it was given, for errors.
        path: of it.
        kind: t5 or clip.
        values: of its config.json.
        run: that it is of; None for a published folder.
    """

    where: str
    path: Path
    kind: str
    values: dict[str, Any]
    run: Finished | None


def open_texts(where: str) -> EncoderTexts:
    """The texts of the encoder that `--text-encoder` names.

    Raises:
        UserError: the folder is none of an encoder of texts, or its tokenizer cannot be read.
    """
    return _texts(_source(where))


def texts_of(where: str, facts: CaptionFacts) -> EncoderTexts:
    """The same, of a run that was trained with the tokenizer.

    Raises:
        UserError: it is another now.
    """
    found = open_texts(where)
    if found.sha256 != facts.vocabulary:
        raise _another(where, "tokenizer", facts.vocabulary, found.sha256)
    return found


def open_text_encoder(where: str, context: int, mesh: Mesh | None = None) -> FrozenText:
    """The encoder that `--text-encoder` names.

    Args:
        context: ids of a text, begin excluded.
        mesh: gives each device its part of the arrays; by default they are whole on one device.

    Raises:
        UserError: there is none, it is damaged, or it has too few ids for its tokenizer or too short a context.
    """
    source = _source(where)
    return _frozen(where, _net(source, mesh), _texts(source), context)


def text_encoder_of(config: Any, facts: CaptionFacts, mesh: Mesh | None = None) -> FrozenText:
    """The encoder that a run was begun with.

    Args:
        mesh: by default the config's.

    Raises:
        UserError: there is none, or it is another now.
    """
    found = open_text_encoder(config.text_encoder, facts.text, mesh or make_mesh(config.mesh))
    if (sha256 := digest(found)) != facts.text_encoder:
        raise _another(config.text_encoder, "encoder", facts.text_encoder, sha256)
    return found


def refuse_another(where: str, folder: Path, now: dict[str, Any]) -> None:
    """Raises `UserError` where a run was begun with an encoder or a tokenizer of another hash.

    Args:
        folder: of the run.
        now: name of each hash in the run's facts, and its value.
    """
    record = folder / "config.json"
    before = read_json(record).get("facts", {}) if record.exists() else {}
    for name, sha256 in now.items():
        if name in before and before[name] != sha256:
            raise _another(where, {"vocabulary": "tokenizer"}.get(name, "encoder"), before[name], sha256)


def text_encoder_on_paper(where: str, context: int) -> tuple[Callable[[], FrozenText], int]:
    """Initialiser of an encoder of the size that a folder has, or that its name says; and its number of ids.

    Raises:
        UserError: there is no such folder, and its name is none of a published size or of a run.
    """
    make, end, begin = _on_paper(where)
    described = lambda: FrozenText(make(), end, begin)
    shapes = eqx.filter_eval_shape(described)
    _check_context(where, shapes, context)
    return described, shapes.vocab


def _on_paper(where: str) -> tuple[Callable[[], Net], int, int | None]:
    """Initialiser of the net, the end and the begin."""
    path, key = Path(where).expanduser(), jr.key(0)
    if path.exists():
        source = _source(where)
        texts = _texts(source)
        return lambda: _net_of(source, _init(source)(key)), texts.end, texts.begin
    published, tower = re.fullmatch(r"t5-(v1_1-)?(\w+)", path.name), path.name.removeprefix("clip-vit-")
    if published and published[2] in (T5_SIZES_V1_1 if published[1] else T5_SIZES):
        config = (T5Config.v1_1 if published[1] else T5Config.v1_0)(published[2])
        return lambda: T5Encoder(T5_IDS, config, key=key), END, None
    if tower in TOWERS:
        dim, heads = TOWERS[tower]
        return lambda: TextTower(CLIP_IDS, TextTowerConfig(dim, heads=heads), key=key), CLIP_IDS - 1, CLIP_IDS - 2
    name, _, preset = path.name.partition("-")
    if name not in RUNS or preset not in named(name).presets:
        sizes = ", ".join([*(f"t5-{size}" for size in T5_SIZES), *(f"t5-v1_1-{size}" for size in T5_SIZES_V1_1)])
        raise UserError(
            f"{FLAG} {where}: must be on paper a folder that is there, or be named {sizes}, "
            f"{', '.join(f'clip-vit-{size}' for size in TOWERS)}, t5-PRESET or clip-PRESET"
        )
    recipe = named(name)
    config = recipe.presets[preset]
    facts = recipe.on_paper(config)
    source = _Source(where, path, name, {}, Finished(recipe, path, config, facts))
    return lambda: _net_of(source, _init(source)(key)), END if name == "t5" else facts.end, None


def _source(where: str) -> _Source:
    path = Path(where).expanduser()
    wanted = "give the folder of a published T5 or CLIP, or of a run of train.t5 or train.clip"
    if not (record := path / "config.json").is_file():
        raise UserError(f"{FLAG} {where}: has no config.json: {wanted}")
    values = read_json(record)
    if isinstance(values, dict) and "recipe" in values:
        recipe = recipe_of(values, record)
        if recipe.name not in RUNS:
            raise UserError(f"{FLAG} {where}: is a run of train.{recipe.name}, which has no encoder of texts: {wanted}")
        return _Source(where, path, recipe.name, values, recipe.open(path, values, record))
    kind = kind_of(values) if isinstance(values, dict) else None
    if kind not in FAMILIES:
        raise UserError(f"{FLAG} {where}: must be an encoder of texts: got model_type {kind!r}: {wanted}")
    return _Source(where, path, FAMILIES[kind], values, None)


def _texts(source: _Source) -> EncoderTexts:
    if source.run is None:
        try:
            tokenizer = open_tokenizer(source.path)
            if source.kind == "clip":
                return _published(source.where, tokenizer)
            return _pairs(PublishedPairs(json.loads(tokenizer.to_json())))
        except ValueError as error:
            raise UserError(f"{FLAG} {source.where}: {error}") from None
    if source.kind == "t5":
        return _pairs(vocabulary_of_run(source.path, source.run.facts))
    own = texts_of_run(source.run)
    if isinstance(own, PublishedTexts):
        return _published(source.where, own.tokenizer)
    return EncoderTexts(own.encode, source.run.facts.end, None, own.size, own.sha256)


def _pairs(vocabulary: Vocabulary) -> EncoderTexts:
    """Texts of a T5, whose padding is 0 and whose end is 1."""
    return EncoderTexts(vocabulary.encode, END, None, vocabulary.size, vocabulary.sha256)


def _published(where: str, tokenizer: Tokenizer) -> EncoderTexts:
    """Texts with the begin and the end that the tokenizer of a published CLIP puts around each."""
    *begin, end = tokenizer.encode("").tolist() or [None]
    if end is None or len(begin) > 1:
        raise UserError(
            f"{FLAG} {where}: must have a tokenizer that puts an end after each text, and one token or none before it: "
            f"got {tokenizer.encode('').tolist()} of the empty text"
        )
    sha256 = hashlib.sha256(tokenizer.to_json().encode()).hexdigest()
    strip = lambda text: tokenizer.encode(text)[len(begin) : -1]
    return EncoderTexts(strip, end, begin[0] if begin else None, tokenizer.size, sha256)


def _net(source: _Source, mesh: Mesh | None) -> Net:
    if source.run is not None:
        return _net_of(source, source.run.model(mesh))
    place = None if mesh is None else lambda name, shape: NamedSharding(mesh, spec_of(name, shape, mesh))
    try:
        model = family_named(source.kind).from_pretrained(source.path, mesh=place, config=_alone(source))
    except (ValueError, OSError) as error:
        raise UserError(f"{FLAG} {source.where}: {error}") from None
    return _net_of(source, model)


def _init(source: _Source) -> Callable[[Any], Any]:
    """Initialiser of the model of a folder."""
    if source.run is not None:
        return source.run.recipe.model(source.run.config, source.run.facts)
    try:
        return family_named(source.kind).build(_alone(source))[0]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{FLAG} {source.where}: {error}") from None


def _alone(source: _Source) -> dict[str, Any]:
    """Values of config.json with which a T5 is read without its decoder."""
    return source.values | ({"architectures": ["T5EncoderModel"]} if source.kind == "t5" else {})


def _net_of(source: _Source, model: Any) -> Net:
    """The encoder of a model."""
    if source.kind == "clip":
        return getattr(model, "published", model).text
    if isinstance(model, T5):
        assert source.run is not None
        sizes, vocab = source.run.config.model, model.vocab
        empty = eqx.filter_eval_shape(lambda key: T5Encoder(vocab, sizes, key=key), jr.key(0))
        return eqx.tree_at(lambda net: (net.embedding, net.encoder), empty, (model.embedding, model.encoder))
    return model


def _frozen(where: str, net: Net, texts: EncoderTexts, context: int) -> FrozenText:
    if texts.size > net.embedding.vocab:
        raise UserError(
            f"{FLAG} {where}: must have an id for every token: got {texts.size} of the tokenizer and "
            f"{net.embedding.vocab} of the model; the tokenizer is another model's"
        )
    try:
        found = FrozenText(net, texts.end, texts.begin)
    except ValueError as error:
        raise UserError(f"{FLAG} {where}: {error}") from None
    _check_context(where, found, context)
    return found


def _check_context(where: str, encoder: FrozenText, context: int) -> None:
    if encoder.context is not None and encoder.context < context:
        begin = "" if encoder.begin is None else ", its begin excluded"
        raise UsageError(
            f"--model.context must be at most the {encoder.context} tokens of {FLAG} {where}{begin}: got {context}"
        )


def _another(where: str, what: str, known: object, sha256: object) -> UserError:
    return UserError(
        f"{FLAG} {where}: its {what} is another than the run was begun with (SHA-256 {sha256} and not {known}): give "
        "back the files that it was trained with"
    )
