"""Settings of every test: the CPU, no rank promotion, cache folders of its own."""

import atexit
import gc
import math
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # libtpu, where it is installed, would wait for a metadata server
# Compiled sooner and run a little slower, which suits programs that run once; XLA_FLAGS="" compiles them as users do,
# as `nox -s ends` does.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
    # A third of the suite's time; newer versions lack the flag.
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""),
)
os.environ.setdefault(
    "MALLOC_TRIM_THRESHOLD_", "131072"
)  # glibc's default, named so that runs leave the workers' allocator alone
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a hundred processes of tests import the same modules
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # a tenth of the time; no test reads locations of code
if "PYTEST_XDIST_WORKER" not in os.environ:
    # Many tests train the same small model: its step is compiled once for all workers and for the processes that they
    # start.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="eqxgen-compiled-")
    # Smaller programs take longer to write, and to look up, than to compile again.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import jaxtyping
import pytest
from jax._src.interpreters import mlir

from tests.costs import longest_first
from tests.hints import hint_of
from tests.oracles import DATA

jax.config.update("jax_numpy_rank_promotion", "raise")
_contexts = threading.local()
_make_context = mlir.make_ir_context


def _context_of_thread() -> Any:
    """The compiler's context of all dialects, made once in a thread: JAX makes one for each program, a fifth of the
    time that a program of one operation takes.
    """
    if not hasattr(_contexts, "made"):
        _contexts.made = _make_context()
    return _contexts.made


mlir.make_ir_context = _context_of_thread
# The modules of this process are decorated with type checks; one that runs here as a command would leave that as the
# bytecode of all.
sys.dont_write_bytecode = True


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until all modules are imported, whose trees and types stay: a quarter of that time
    # xdist would hand out the files with the most tests first, and a file of one long test last.
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = longest_first(items)


def pytest_collection_finish() -> None:
    # Imported modules stay until the end: the garbage collector need not go through them after every few hundred
    # objects, of which a trace has thousands.
    gc.enable()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The report of a test, with a hint where its error is the suite's setting."""
    report = yield
    if call.excinfo is not None and (hint := hint_of(call.excinfo.value)):
        report.sections.append(("hint", hint))
    return report


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it skip where it is absent."""
    if not (DATA / "mnist").is_dir():
        pytest.skip(f"the data sets are not at {DATA}; set EQXGEN_DATA to their folder")
    return DATA


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for all workers of the session, so that the classifier of the digits is trained once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(autouse=True, scope="module")
def _forget_programs() -> Iterator[None]:
    """Compiled programs are forgotten after a module in which they take gigabytes, or most of Linux's 65,530 mappings
    of a process. Forgetting takes ten seconds, and frees less than it finds.
    """
    yield
    if resident() > 6e9 or mappings() > 55_000:
        jax.clear_caches()
        vars(_contexts).clear()


def resident() -> float:
    """Bytes of this process in memory; infinite where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return math.inf


def mappings() -> int:
    """Parts of memory that this process has mapped; 0 where the system does not tell."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 0


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the run-time type checks of the suite: symbols as sizes, and the messages that users see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
