"""Report on this machine: versions, devices, implementations, folders and conflicts.

  python -m train.doctor
  python -m train.doctor --seq 4096 --head-dim 128 --dtype float16
  python -m train.doctor --mesh data=4,model=2

Prints the versions, the devices, the implementation of each fused operation for the given shapes with the reason
against each other one, on several devices also for each kind of mesh axes, the cache folders with their free space, and
conflicts in the environment. Changes nothing; the exit status is 0.
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from ._errors import printable, require
from .config import flags
from .config.data import cache_folder
from .engine.command import run
from .engine.compile_cache import cache_path

PACKAGES = (
    "jax",
    "jaxlib",
    "equinox",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "safetensors",
    "jax-triton",
    "libtpu",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Shapes for which implementations are chosen."""

    batch: int = 8
    """Examples per device."""
    seq: int = 1024
    """Tokens."""
    heads: int = 12
    """Attention heads."""
    head_dim: int = 64
    """Width of a head."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of activations."""
    causal: bool = False
    """Causal attention."""
    mesh: str = ""
    """Mesh of several devices, as in training: data=4,model=2; by default all along data."""

    def __post_init__(self):
        for name in ("batch", "seq", "heads", "head_dim"):
            require(1 <= getattr(self, name) <= 2**20, f"{name} must be in [1, 2**20]: got {getattr(self, name)}")


def main(config: Config) -> int:
    section("versions", versions())
    clashes = found_clashes()
    if fatal := jax_cannot_start():
        section("folders", folders())
        section("clashes", [*clashes, fatal])
        return 0
    from .parallel import make_mesh
    from .report.meshes import mesh_choices
    from .report.operations import choices

    mesh = make_mesh(config.mesh)
    on_mesh = mesh_choices(config, mesh) if mesh.size > 1 else []
    section("devices", devices())
    section("operations", choices(config))
    if on_mesh:
        section("mesh axes", on_mesh)
    section("folders", folders())
    section("clashes", clashes or ["none found"])
    return 0


def section(title: str, lines: list[str]) -> None:
    print(f"{title}\n" + "".join(f"  {line}\n" for line in lines))


def versions() -> list[str]:
    """Versions of Python and of each package that training may use."""
    lines = [f"{'python':18} {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for name in PACKAGES:
        try:
            lines.append(f"{name:18} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name:18} not installed")
    return lines


def devices() -> list[str]:
    """Number and kind of the devices, and their memory and peak where these are known."""
    import jax

    from .report.peak import peak_of

    first = jax.local_devices()[0]
    lines = [f"{jax.device_count()} x {first.device_kind} ({jax.default_backend()}), {jax.process_count()} process(es)"]
    memory = first.memory_stats() or {}
    if "bytes_limit" in memory:
        free = memory["bytes_limit"] - memory.get("bytes_in_use", 0)
        lines.append(f"memory of the first: {free / 2**30:.1f} of {memory['bytes_limit'] / 2**30:.1f} GiB free")
    peak = peak_of(first.device_kind)
    lines.append(f"peak: {peak / 1e12:,.0f} TFLOP/s in bfloat16" if peak else "peak: not known, so runs show no MFU")
    lines.append(f"memory of the machine: {_machine_memory()}")
    return lines


def folders() -> list[str]:
    """Folders of caches and runs, with their free space."""
    places: dict[str, Path | None] = {
        "data": Path(os.environ.get("EQXGEN_DATA") or cache_folder()),
        "judges": cache_folder().parent / "judges",
        "compiled programs": Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
        if "JAX_COMPILATION_CACHE_DIR" in os.environ
        else cache_path(None),
        "runs": Path("runs"),
    }
    return [f"{name:18} {path}  {_room(path)}" for name, path in places.items() if path is not None]


def found_clashes() -> list[str]:
    """Conflicts in the environment, each with a hint; found before JAX starts, as some of them would end it."""
    lines = []
    for word in os.environ.get("XLA_FLAGS", "").split():
        if not word.startswith("--xla"):
            lines.append(
                f"XLA_FLAGS holds {printable(word)!r}: XLA ends every process for a flag that it does not know; "
                "unset XLA_FLAGS"
            )
    top = importlib.util.find_spec("kernels")
    here = Path(__file__).parents[1] / "kernels" / "__init__.py"
    if here.exists() and top is not None and top.origin and Path(top.origin).resolve() != here.resolve():
        lines.append(
            f"another package named kernels, {top.origin}, is imported instead of eqxgen's: run from the top of the "
            "checkout"
        )
    if os.environ.get("JAX_ENABLE_X64", "0").lower() in ("1", "true"):
        lines.append("JAX_ENABLE_X64 is set: recipes are made for float32; unset it")
    if os.environ.get("JAX_DISABLE_JIT", "0").lower() in ("1", "true"):
        lines.append("JAX_DISABLE_JIT is set: nothing is compiled, and training is slow; unset it")
    return lines


def jax_cannot_start() -> str | None:
    """The reason why JAX does not start, tried in another process; None where it starts."""
    suspects = [
        f"{name}={printable(os.environ[name])}" for name in ("XLA_FLAGS", "JAX_PLATFORMS") if os.environ.get(name)
    ]
    if not suspects:
        return None
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"JAX does not start within 120 s with {' '.join(suspects)}: unset them"
    if done.returncode == 0:
        return None
    reasons = [line for line in done.stderr.splitlines() if "Unknown flag" in line or "Error" in line] or ["no message"]
    return f"JAX does not start with {' '.join(suspects)}: {printable(reasons[-1]).strip()}: correct or unset them"


def _room(path: Path) -> str:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    state = "" if existing == path.absolute() else "(not made yet) "
    state += "" if os.access(existing, os.W_OK) else "(cannot be written) "
    return f"{state}{shutil.disk_usage(existing).free / 2**30:,.1f} GiB free"


def _machine_memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        values: dict[str, Any] = dict(line.split(":", 1) for line in lines)
        free, total = (int(values[name].split()[0]) / 2**20 for name in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        return "not known"
    return f"{free:.1f} of {total:.1f} GiB free"


def command() -> int:
    return main(flags.parse(Config, "doctor", __doc__ or "", sys.argv[1:]))


if __name__ == "__main__":
    run(command)
