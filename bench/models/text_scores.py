"""Scores of small BERTs on tasks of texts, with and without masked words of the task's own training texts before:
`python -m bench.models.text_scores trec mr --seeds 5 --runs runs/text_scores`.

For each task a `train.glue` of each seed from scratch, a `train.bert` of seed 0, and a `train.glue` of each seed from
that run. After each run the scores of the test part of every seed, and their medians, are written into
bench/results/cpu/text_scores.json; finished runs are not repeated, and those that another command made have no
cpu_seconds.
"""

import argparse
import json
import pathlib
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bench.models.runs import trained
from train import bert, glue

RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "text_scores.json"


class Task(NamedTuple):
    """Flags of a task's runs beside those of the presets tiny.

    Attributes:
        context: tokens of both runs.
        masked: steps of train.bert.
        steps: of train.glue.
        tokenizer: of both; train.glue after train.bert has that of its start.
    """

    context: int
    masked: int
    steps: int
    tokenizer: str = "words-8000"


TASKS = {
    "trec": Task(24, 3000, 1000, "cased-words-8000"),
    "sst2": Task(40, 1000, 600),
    "mr": Task(40, 3000, 600),
    "cola": Task(24, 1500, 1000),
}
WAYS = ("scratch", "pretrained")
QUIET = ["--log-every=100", "--sample-every=0", "--checkpoint-every=1000000"]
COSTS = ("parameters", "steps", "cpu_seconds")


def run(recipe: Any, folder: pathlib.Path, flags: list[str]) -> dict[str, Any]:
    """Summary of a run, which is trained unless it is finished."""
    summary = trained(recipe, folder, flags)
    kept = {name: value for name, value in summary.items() if name.startswith(("eval_", "test_", "masked_"))}
    return kept | {name: summary[name] for name in COSTS if name in summary}


def scored(
    task: str, seeds: int, ways: Sequence[str], runs: pathlib.Path, before: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Summaries of a task's runs, and the medians of their scores, after each run; a way that is not asked for stays
    as it was.
    """
    of = TASKS[task]
    flags = [f"--data.name={task}", f"--model.context={of.context}", *QUIET]
    tokenizer = f"--data.tokenizer={of.tokenizer}"
    source = runs / f"bert-{task}"
    found: dict[str, Any] = {"scratch": {}, "pretrained": {}} | before | {way: {} for way in ways}
    for way in ways:
        start = f"--from={source}" if way == "pretrained" else tokenizer
        if way == "pretrained":
            found["masked"] = run(bert, source, [*flags, tokenizer, f"--steps={of.masked}"])
            yield found | {"medians": medians(found)}
        for seed in range(seeds):
            found[way][str(seed)] = run(
                glue, runs / f"{task}-{way}-{seed}", [*flags, start, f"--steps={of.steps}", f"--seed={seed}"]
            )
            yield found | {"medians": medians(found)}


def medians(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Medians over the seeds of the scores of each way."""
    return {
        way: {
            name: statistics.median(each[name] for each in found[way].values())
            for name in next(iter(found[way].values()))
            if name.startswith(("eval_", "test_"))
        }
        for way in WAYS
        if found[way]
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="+", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/text_scores"))
    options = parser.parse_args()
    for task in options.tasks:
        results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        for found in scored(task, options.seeds, options.ways, options.runs, results.get(task, {})):
            RESULT.write_text(json.dumps(results | {task: found}, indent=1) + "\n")
            print(json.dumps(found["medians"]), flush=True)


if __name__ == "__main__":
    main()
