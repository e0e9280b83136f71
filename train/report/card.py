"""Card of a run: model, data, numbers, and the command that repeats it."""

import json
from pathlib import Path
from typing import Any

from .._files import read_json
from ..config.known import KNOWN


def card(
    record: dict[str, Any],
    summary: dict[str, Any],
    examples: int,
    title: str,
    kind: str,
    pictures: dict[str, str],
    text: str = "",
    sounds: dict[str, str] | None = None,
) -> str:
    """The card as Markdown.

    Args:
        record: of config.json.
        summary: of summary.json.
        examples: of training.
        title: of the recipe.
        kind: of the examples, such as "images of 8 x 8 x 1".
        pictures: caption and file beside the card.
        text: a block of text of the model.
        sounds: caption and file beside the card, each with a player.
    """
    config, recipe = record["config"], record["recipe"]
    data = config["data"]["name"]
    skipped = {"recipe", "preset", "steps", "jax_version", "device", "parameters"}
    numbers = "\n".join(
        f"| {name} | {value:.6g} |"
        for name, value in summary.items()
        if name not in skipped and isinstance(value, int | float)
    )
    shown = "\n\n".join(f"![{caption}]({file})" for caption, file in pictures.items())
    for caption, file in (sounds or {}).items():  # the link is for readers without a player
        shown += f'\n\n<audio controls src="{file}"></audio> [{caption}]({file})'
    return f"""# {title} on {data}

{summary["parameters"]:,} parameters, trained for {summary["steps"]:,} steps of {config["batch_size"]} examples on \
{summary["device"]}.

{shown}

{text}| number | value |
|---|---|
{numbers}

## Data

{examples:,} training examples of `{data}`, {kind}.
Licence: {_licence(data)}.

## Again

```
python -m train.{recipe} --config config.json --run-dir again
python -m train.sample --run .
```

`config.json` here has every flag, `model.safetensors` the averaged weights with their configuration inside. Made with \
JAX {summary["jax_version"]}; the same command on the same devices gives the same weights.

## Licence

The code is eqxgen's, Apache-2.0. Weights are bound by the licence of their data.
"""


def _licence(data: str) -> str:
    if known := KNOWN.get(data):
        return f"{known.title}: {known.licence}"
    return "that of the folder or file, which only its owner knows"


def write_card(folder: Path, summary: dict[str, Any], examples: int, title: str, kind: str) -> None:
    """Writes the loss curve, the animation of the samples, and README.md beside them, into the folder of a run. The
    rest is as in `card`.
    """
    from .animation import FILM, animate
    from .curve import loss_curve

    record = read_json(folder / "config.json")
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    curve = loss_curve(
        [(line["step"], float(line["loss"])) for line in lines],
        f"{record['recipe']} on {record['config']['data']['name']}: loss",
    )
    (folder / "loss.svg").write_text(curve, encoding="utf-8")
    pictures = {"loss by step": "loss.svg"}
    if grids := sorted((folder / "samples").glob("step-*.png")):
        pictures["samples at the end"] = f"samples/{grids[-1].name}"
    text = ""
    if texts := sorted((folder / "samples").glob("step-*.txt")):
        text = f"```\n{texts[-1].read_text(encoding='utf-8')[:1000]}\n```\n\n"
    if animate(folder / "samples", folder / "samples.webp"):
        pictures["samples along the way"] = "samples.webp"
    if (folder / FILM).exists():
        pictures["from noise to samples: ancestral sampling beside DDIM"] = FILM
    sounds = {}
    if waves := sorted((folder / "samples").glob("step-*.wav")):
        sounds["recordings, each followed by its resynthesis, at the end"] = f"samples/{waves[-1].name}"
    content = card(record, summary, examples, title, kind, pictures, text, sounds)
    (folder / "README.md").write_text(content, encoding="utf-8")
