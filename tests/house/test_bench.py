"""The harness of `nox -s bench`: a small run of one benchmark, the race's pairing, the tables made from the results."""

import importlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bench import __main__ as door
from bench import report
from bench.race import Side, in_rounds, ratios
from bench.reliability.faults.__main__ import CHECKS
from tests.house.layout import CHECKOUT

ELSEWHERE = {"torch", "transformers", "diffusers", "libtpu", "tokamax", "triton", "nvidia", "torchmetrics"}
"""Packages that some benchmarks race, and that not every environment has."""


@pytest.mark.parametrize("path", sorted((CHECKOUT / "bench" / "models").rglob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_of_models_names_what_there_is_in_the_recipes(path):
    try:
        importlib.import_module(".".join(path.relative_to(CHECKOUT).with_suffix("").parts))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ELSEWHERE:
            raise


def test_one_benchmark_writes_its_paired_ratios_into_the_json_and_the_table(tmp_path):
    path = tmp_path / "suite.json"
    flags = [
        "-k",
        "rms_norm and not backward",
        "--benchmark-min-rounds=2",
        "--benchmark-max-time=0",
        "-p",
        "no:cacheprovider",
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env |= {"PYTHONPATH": str(CHECKOUT), "EQXGEN_FULL": ""}
    line = [sys.executable, "-m", "bench", "norms", *flags, f"--benchmark-json={path}"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(path.read_text())["benchmarks"]
    assert row["group"] == "rms_norm 4096x768"
    ratio = row["extra_info"]["times ours"]["plain"]
    assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
    assert row["extra_info"]["ms"]["ours"] == pytest.approx(1e3 * row["stats"]["median"])
    assert row["extra_info"]["about"]["versions"]["jax"]
    assert row["stats"]["rounds"] == 2
    assert "data" not in row["stats"]
    assert f"| norm[rms_norm-4096x768-scale-forward] | {row['extra_info']['ms']['ours']:.4g} |" in done.stdout
    assert "| case | ours ms | plain / ours |" in report.table(report.read(path))


class Rounds:
    """pytest-benchmark's fixture, as far as a race uses it, with a clock of one second per call."""

    disabled = False

    def pedantic(self, target, *, teardown, rounds, iterations):
        self.rounds = rounds
        for _ in range(rounds):
            for _ in range(iterations):
                target()
            teardown()
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=[1.0] * rounds))


def test_rivals_run_once_in_each_of_our_rounds_in_an_order_that_rotates():
    order = []
    side = lambda name: lambda: Side(lambda: order.append(name))
    found = in_rounds(Rounds(), {name: side(name) for name in ("ours", "a", "b")}, 0.0, 3, once=True)
    assert order == ["ours", "a", "b", "a", "b", "ours", "b", "ours", "a"]
    assert set(found["times ours"]) == {"a", "b"}


def test_a_rival_that_fails_is_left_out_with_its_reason_and_ours_may_not():
    def missing():
        raise ModuleNotFoundError("No module named 'torch'")

    makers = {"ours": lambda: Side(lambda: None), "torch": missing}
    assert in_rounds(Rounds(), makers, 0.0, 2)["left out"] == {"torch": "ModuleNotFoundError: No module named 'torch'"}
    with pytest.raises(RuntimeError, match="ours must run: ModuleNotFoundError"):
        in_rounds(Rounds(), {"ours": missing}, 0.0, 2)


def test_a_ratio_is_the_median_of_pairs_and_not_the_ratio_of_medians():
    # The machine is ten times slower in the second round; each pair has the ratio 2 or 3.
    assert ratios({"ours": [1.0, 10.0, 1.0], "rival": [2.0, 30.0, 2.0]}) == {
        "rival": {"median": 2.0, "low": 2.0, "high": 2.5}
    }


def test_names_become_files_and_the_rest_is_pytests():
    line = door.pytest_arguments(["norms", "-k", "rms"])
    assert line[:2] == ["-c", str(CHECKOUT / "bench" / "pytest.ini")]
    assert [word.split("/")[-1] for word in line[-3:]] == ["bench_norms.py", "-k", "rms"]
    assert len(door.pytest_arguments([])) == len(door.PYTEST) + len(door.files())
    assert len(door.files()) >= 7
    with pytest.raises(SystemExit, match=r"benchmark must be one of .*attention.*gpu.*: got 'nor'"):
        door.pytest_arguments(["nor"])


def test_the_committed_tables_are_those_of_the_committed_numbers():
    for path, text in report.made():
        assert path.read_text(encoding="utf-8") == text, f"{path.relative_to(CHECKOUT)}: run python -m bench report"


def test_the_older_results_keep_their_numbers_and_their_direction():
    rows = {row.case: row for row in report.read(report.RESULTS / "cpu" / "layers.json")}
    assert rows["MultiheadAttention, forward"].ratios == {"ours / equinox": 0.97, "ours / torch": 1.05}
    slow = report.Row("a", 2.0, {"ours / torch": 1.2, "torch / ours": 0.8, "plain / ours": 1.2}, {}, {})
    assert "| a | 2 | **1.20** | **0.80** | 1.20 |" in report.table([slow])


def test_a_table_of_a_document_is_replaced_and_the_text_around_it_stays():
    text = "before\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nafter\n"
    assert report.with_table(text, "| a | b |\n|---|---|\n| 3 | 4 |\n") == text.replace("| 1 | 2 |", "| 3 | 4 |")
    with pytest.raises(ValueError, match=r"one table with the head '\| x \|': it has 0"):
        report.with_table(text, "| x |\n|---|\n")


def test_a_sampler_has_as_many_steps_as_its_evaluations_allow():
    from bench.models.evaluations import NOISY, PER_STEP, distinct, steps_of
    from eqxgen.configs.diffusion import SAMPLERS

    assert {*PER_STEP, *NOISY} < set(SAMPLERS)
    found = {name: [steps_of(name, count) for count in (1, 2, 18, 50)] for name in ("euler", "heun", "rk4", "pndm")}
    assert found == {"euler": [1, 2, 18, 50], "heun": [1, 1, 9, 25], "rk4": [1, 1, 5, 13], "pndm": [1, 1, 17, 49]}
    assert list(distinct(("euler", "heun"), (2, 1, 4))) == [
        ("euler", 1),
        ("heun", 1),
        ("euler", 2),
        ("euler", 4),
        ("heun", 4),
    ]


def test_the_adaptive_sampler_has_the_least_tolerance_that_its_evaluations_allow(monkeypatch):
    from bench.models.evaluations import Judged
    from train._errors import UsageError

    judged, made = object.__new__(Judged), []
    judged.adaptive = {}
    spent = {1.0: 9.0, 0.3: 15.0, 0.1: 21.0, 0.03: 60.0}

    def row(evaluations, seed, *, rtol, **rest):
        made.append(rtol)
        return {"asked": evaluations, "evaluations": spent[rtol]}

    monkeypatch.setattr(judged, "_row", row)
    found = {count: judged.row("rk45", count, 0) for count in (18, 50)}
    assert found == {
        18: {"asked": 18, "evaluations": 15.0, "tolerance": 0.3},
        50: {"asked": 50, "evaluations": 21.0, "tolerance": 0.1},
    }
    assert made == [1.0, 0.3, 0.1, 0.03]
    with pytest.raises(UsageError, match=r"9\.0 evaluations at its largest tolerance"):
        judged.row("rk45", 8, 0)


def test_the_table_of_faults_has_each_row_and_this_checkout_keeps_those_of_its_documents(monkeypatch, tmp_path):
    assert sorted(CHECKS) == list(range(1, 47))
    monkeypatch.setenv("EQXGEN_CHECKOUT", str(CHECKOUT))
    found = {number: CHECKS[number].look(tmp_path) for number in (24, 37, 41, 43, 46)}
    assert all(held for held, _ in found.values()), found
    (tmp_path / "eqxgen").mkdir()
    (tmp_path / "docs").mkdir()
    for name, text in {"eqxgen/ops.py": "import importlib", "CONTRIBUTING.md": "", "docs/attention.md": ""}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("EQXGEN_CHECKOUT", str(tmp_path))
    assert not any(CHECKS[number].look(tmp_path)[0] for number in (24, 37, 41, 46))
