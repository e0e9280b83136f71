"""pytest-benchmark for `nox -s bench`: the fixture `race`, and one JSON of results for each device."""

import json
import os
import pathlib
import platform
from collections.abc import Callable
from typing import Any

import pytest

from bench import machine, report
from bench.race import Makers, in_rounds

SUITE = "suite.json"
FOUND = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "all shapes and slow benchmarks, as EQXGEN_FULL=1"
    parser.getgroup("benchmark").addoption("--full", action="store_true", help=text)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """The defaults of --benchmark-json and --benchmark-compare: the results of the device at hand.

    Raises:
        UsageError: there are none to compare with.
    """
    option, suite = config.option, machine.folder(machine.device()) / SUITE
    config.stash[FOUND] = {}
    if option.full:
        os.environ["EQXGEN_FULL"] = "1"
    if not option.benchmark_disable:
        option.benchmark_json = option.benchmark_json or suite
    if option.benchmark_compare is True:
        if not suite.is_file():
            raise pytest.UsageError(f"--benchmark-compare needs earlier results: no {suite}; run once without it")
        option.benchmark_compare = str(suite)


@pytest.fixture
def race(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """A race of contenders, `ours` among them; its ratios and the given facts become `extra_info`."""

    def run(makers: Makers, group: str, *, once: bool = False, least: int | None = None, **facts: Any) -> dict:
        option = request.config.getoption
        benchmark.group = group
        least = least or option("benchmark_min_rounds")
        found = in_rounds(benchmark, makers, float(option("benchmark_max_time")), least, once)
        benchmark.extra_info |= found | facts | {"about": machine.about()}
        if "ms" in found:
            name = request.node.nodeid.split("::")[-1].removeprefix("bench_")
            request.config.stash[FOUND][name] = benchmark.extra_info
        return found

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if rows := [report.row_of(name, info) for name, info in config.stash[FOUND].items()]:
        terminalreporter.section("paired ratios")
        terminalreporter.write_line(report.table(rows))


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    return {"machine": platform.machine(), "system": platform.system(), "device": machine.device()}


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    for name in ("project", "branch"):
        commit_info.pop(name, None)


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """Rows without each round's time, merged over the rows of earlier runs."""
    place = pathlib.Path(config.option.benchmark_json)
    place.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(place.read_text(encoding="utf-8"))["benchmarks"] if place.is_file() else []
    rows = {row["fullname"]: row for row in [*known, *output_json["benchmarks"]]}
    for row in rows.values():
        row["stats"].pop("data", None)
    output_json["benchmarks"] = [rows[name] for name in sorted(rows)]
