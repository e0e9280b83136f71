"""NVIDIA's assembler for Pallas' Mosaic GPU kernels, on a machine without a GPU: registers, spills, warnings.

It needs jax's CUDA plugin and `ptxas` (both in the extra `cuda`), and a C compiler. The plugin builds a kernel for the
device that the driver reports; a stub driver reports one sm_90 device, and nothing is loaded or run.
"""

import contextlib
import ctypes
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from jax.experimental.mosaic.gpu import core as mosaic

# The attributes that are asked for are the compute capability's two numbers.
DRIVER = """
int cuInit(unsigned flags) { return 0; }
int cuCtxGetDevice(int *device) { *device = 0; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "there is no device"; return 0; }
int cuModuleLoadData(void **module, const void *image) { return 100; }
"""
PLUGINS = ("jax_plugins.xla_cuda13.xla_cuda_plugin", "jax_plugins.xla_cuda12.xla_cuda_plugin")


class Assembled(NamedTuple):
    """A kernel in machine code.

    Attributes:
        registers: of a thread at its start; warpgroups then take from each other.
        spilled: bytes of a thread in memory for want of registers.
        warnings: every other remark of the assembler, such as serialised matrix products.
    """

    name: str
    registers: int
    spilled: int
    warnings: tuple[str, ...]


class Assembler:
    """Assembles in this process.

    Raises:
        RuntimeError: something that it needs is missing.
    """

    def __init__(self):
        plugin, self.root = _plugin(), _root()
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise RuntimeError("no C compiler: cc and gcc are not on the path")
        with tempfile.TemporaryDirectory() as folder:
            source, library = pathlib.Path(folder, "driver.c"), pathlib.Path(folder, "libcuda.so.1")
            source.write_text(DRIVER)
            subprocess.run(
                [compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, source], check=True
            )
            # Later lookups of that library's name find this one.
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        self._compile = ctypes.CDLL(str(plugin)).MosaicGpuCompile
        self._compile.argtypes, self._compile.restype = [ctypes.c_char_p, ctypes.c_int], ctypes.c_void_p
        os.environ |= {
            "MOSAIC_GPU_CUDA_ROOT": str(self.root),
            "CUDA_ROOT": str(self.root),
            "MOSAIC_GPU_DUMP_PTXAS": "1",
        }

    @property
    def version(self) -> str:
        """Of ptxas."""
        said = subprocess.run(
            [self.root / "bin" / "ptxas", "--version"], capture_output=True, text=True, check=True
        ).stdout
        return re.findall(r"V[\d.]+", said)[-1]

    def assemble(self, module: bytes) -> Assembled:
        """A kernel as `lowered` gives it.

        Raises:
            RuntimeError: the compiler or the assembler refuses it.
        """
        with _captured() as said:
            # It ends in an error, as nothing can be loaded.
            self._compile(module, len(module))
        return read(said[0])


@contextlib.contextmanager
def lowered() -> Iterator[list[bytes]]:
    """The kernels that are lowered while it is entered, each once."""
    known, found = dict(mosaic.KNOWN_KERNELS), []
    mosaic.KNOWN_KERNELS.clear()
    try:
        yield found
        found += mosaic.KNOWN_KERNELS.values()
    finally:
        mosaic.KNOWN_KERNELS.update(known)


def read(said: str) -> Assembled:
    """The report of `ptxas -v` about one kernel.

    Raises:
        RuntimeError: there is none.
    """
    name = re.search(r"Compiling entry function '(\w+?)(?:_mosaic_gpu_kernel)?'", said)
    spilled, registers = re.search(r"(\d+) bytes spill stores", said), re.search(r"Used (\d+) registers", said)
    if not (name and spilled and registers):
        raise RuntimeError(f"it does not assemble: {said.strip()[:2000]}")
    told = re.compile(r"\(C\d+\)|warning|error", re.IGNORECASE)
    known = (
        "Registers are spilled",
        "JIT session error",
    )  # the first is counted, the second is of the host's part, which is not linked
    warnings = tuple(
        line.strip() for line in said.splitlines() if told.search(line) and not any(text in line for text in known)
    )
    return Assembled(name[1], int(registers[1]), int(spilled[1]), warnings)


@contextlib.contextmanager
def _captured() -> Iterator[list[str]]:
    """The standard output and error of libraries during the context."""
    kept, said = [os.dup(1), os.dup(2)], []
    with tempfile.TemporaryFile() as file:
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield said
        finally:
            for number, old in zip((1, 2), kept):
                os.dup2(old, number)
                os.close(old)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))


def _plugin() -> pathlib.Path:
    for name in PLUGINS:
        package, _, library = name.rpartition(".")
        spec = importlib.util.find_spec(package) if importlib.util.find_spec("jax_plugins") else None
        for folder in (spec and spec.submodule_search_locations) or ():
            if (path := pathlib.Path(folder) / f"{library}.so").exists():
                return path
    raise RuntimeError("jax's CUDA plugin is not installed (extra `cuda`)")


def _root() -> pathlib.Path:
    """The folder of a CUDA toolkit with `bin/ptxas`."""
    spec = importlib.util.find_spec("nvidia")
    folders = [pathlib.Path(x) / "cu13" for x in (spec and spec.submodule_search_locations) or ()]
    found = shutil.which("ptxas")
    folders += [pathlib.Path(found).resolve().parents[1]] if found else []
    folders += [pathlib.Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))]
    for folder in folders:
        if (folder / "bin" / "ptxas").exists():
            return folder
    raise RuntimeError("ptxas is not installed (extra `cuda`)")
