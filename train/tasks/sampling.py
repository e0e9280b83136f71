"""Options of `python -m train.sample` by family of runs, and the writing of samples. Imports nothing heavy."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import UsageError, UserError, require

if TYPE_CHECKING:
    from eqxgen.configs import Sampling


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Options of every family."""

    run: str
    """Folder of the run."""
    seed: int = 0
    """Seed of every draw."""
    mesh: str = ""
    """Mesh of devices, such as fsdp=8. By default every device has a copy of the model."""

    def __post_init__(self):
        require(0 <= self.seed < 2**32, f"seed must be in [0, 2**32): got {self.seed}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSample(Sample):
    """Images in one grid."""

    out: str = "samples.png"
    """PNG file to write."""
    n: int = 64
    """Number of images."""
    label: int | None = None
    """Class of all images; by default the classes in turn."""
    columns: int = 8
    """Images in a row of the grid."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("n", "columns"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1: got {getattr(self, name)}")
        require(self.label is None or self.label >= 0, f"label must be at least 0: got {self.label}")
        require(self.out.lower().endswith(".png"), f"out must be the name of a .png file: got {self.out!r}")

    def check_label(self, classes: int) -> None:
        """Raises `UsageError` unless the label is one of the run's classes."""
        if self.label is not None and self.label >= classes:
            raise UsageError(f"--label must be in [0, {classes}): got {self.label}")

    def save(self, images: Any) -> int:
        """Writes images `(n, height, width, channels)` in [-1, 1]; gives the exit status."""
        import numpy as np

        from ..data import image_grid, save_png

        pixels = np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
        try:
            save_png(self.out, image_grid(pixels, self.columns))
        except UserError as error:
            raise UserError(f"--out {error}") from None
        print(f"{len(images)} images in {self.out}")
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSample(Sample):
    """Texts, printed while they are generated."""

    prompt: tuple[str, ...] = ()
    """Beginning of the text; several, for a text of each. By default a line end."""
    chars: int = 500
    """Characters after each prompt."""
    n: int = 1
    """Texts for each prompt."""
    temperature: float = 0.8
    """Divisor of the logits; 0: the most likely token (greedy)."""
    top_k: int | None = None
    """Number of the most likely tokens that are drawn from."""
    top_p: float | None = None
    """Probability of the fewest most likely tokens that are drawn from (nucleus)."""
    min_p: float | None = None
    """Smallest probability of a token relative to the most likely one."""
    repetition_penalty: float = 1.0
    """Penalty on tokens that occurred before; 1: none."""
    beams: int | None = None
    """Width of a beam search for the most likely text, instead of a random draw."""
    out: str | None = None
    """Text file to write, instead of the screen."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("chars", "n"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1: got {getattr(self, name)}")
        require("" not in self.prompt, "prompt must be one or more characters: got ''")
        require(self.beams is None or self.beams >= 1, f"beams must be at least 1: got {self.beams}")
        plain = {field.name: field.default for field in dataclasses.fields(TextSample)}
        drawing = [name for name in ("n", *_DRAWING) if getattr(self, name) != plain[name]]
        require(
            self.beams is None or not drawing,
            f"beams goes without {drawing[0] if drawing else ''}: a search draws nothing",
        )
        _ = self.sampling

    @property
    def sampling(self) -> "Sampling":
        from eqxgen.configs import Sampling

        return Sampling(**{name: getattr(self, name) for name in _DRAWING})


_DRAWING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def write_texts(
    folder: Path, record: dict[str, Any], options: TextSample, build: Callable[[dict[str, Any]], Any]
) -> int:
    """Texts of a run of a language model: a single one as it is generated, several when all are complete, with a line
    of dashes between them.

    Args:
        build: from a run's config.json to its model.

    Raises:
        UserError: the run has no model, no vocabulary or another one than its model's, or a prompt cannot be said in
            it.
    """
    from ..parallel import make_mesh
    from ..parallel.decoder import decoder
    from ..run.weights import load_model
    from .language import encode_prompt, vocabulary_of_run

    vocabulary = vocabulary_of_run(folder, record["facts"])
    mesh = make_mesh(options.mesh)
    model = decoder(load_model(folder / "model.safetensors", build, mesh)[0], mesh)
    given = options.prompt or (vocabulary.start,)
    prompts = [
        encode_prompt(vocabulary, prompt, "--prompt", model.context) for prompt in given for _ in range(options.n)
    ]
    if len(prompts) == 1 and options.out is None and options.beams is None:
        print(given[0], end="", flush=True)
        for (piece,) in _pieces(model, vocabulary, prompts, options):
            print(piece, end="", flush=True)
        print()
        return 0
    if options.beams is None:
        texts = ["".join(parts) for parts in zip(*_pieces(model, vocabulary, prompts, options))]
    else:
        texts = [_searched(model, vocabulary, prompt, options) for prompt in prompts]
    starts = [prompt for prompt in given for _ in range(options.n)]
    whole = "\n---\n".join(start + text for start, text in zip(starts, texts)) + "\n"
    if options.out is None:
        print(whole, end="", flush=True)
        return 0
    try:
        Path(options.out).write_text(whole, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {options.out}: cannot be written: {error.strerror}") from None
    print(f"{len(texts)} texts in {options.out}")
    return 0


def _pieces(model: Any, vocabulary: Any, prompts: list[Any], options: TextSample):
    """Continuation of each prompt, piece by piece, up to `options.chars` characters; a complete text gives empty
    pieces.
    """
    import jax.random as jr

    from eqxgen.decoding.autoregressive import stream

    decoders, left = [vocabulary.decoder() for _ in prompts], [options.chars] * len(prompts)
    try:
        for ids in stream(model, prompts, options.sampling, key=jr.key(options.seed)):
            pieces = [decode(id)[:room] for decode, id, room in zip(decoders, ids.tolist(), left)]
            left = [room - len(piece) for room, piece in zip(left, pieces)]
            yield pieces
            if not any(left):
                return
    except FloatingPointError as error:
        raise UserError(f"--run {options.run}: {error}") from None


def _searched(model: Any, vocabulary: Any, prompt: Any, options: TextSample) -> str:
    from eqxgen.decoding.autoregressive import beam_search

    if model.context is not None and len(prompt) + options.chars > model.context:
        raise UsageError(
            f"--chars must be at most {model.context - len(prompt)} with --beams and this prompt, as the model's context "
            f"is {model.context} tokens: got {options.chars}"
        )
    if options.beams is None or options.beams > model.vocab:
        raise UsageError(f"--beams must be at most the vocabulary's {model.vocab}: got {options.beams}")
    return vocabulary.decode(beam_search(model, prompt, options.chars, options.beams)[0])[: options.chars]
