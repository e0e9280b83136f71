"""Runs published implementations and keeps what they answer: `python -m tests.oracles SUBJECT...`, or all."""

import importlib
import importlib.metadata
import sys

import numpy as np

from tests.oracles import FOLDER, alone

LIBRARIES = ("diffusers", "librosa", "torch", "torchmetrics", "transformers", "vector-quantize-pytorch")


def subjects() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def main() -> None:
    versions = []
    for library in LIBRARIES:
        try:
            versions.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    for subject in sys.argv[1:] or subjects():
        with alone():
            cases = importlib.import_module(f"tests.oracles.{subject}").cases()
        arrays = {f"{case}/{name}": np.asarray(array) for case, parts in cases.items() for name, array in parts.items()}
        np.savez_compressed(
            FOLDER / f"{subject}.npz",
            allow_pickle=False,
            **{"about/versions": np.asarray(", ".join(versions))},
            **arrays,
        )
        print(f"{subject}.npz: {len(cases)} cases, {(FOLDER / f'{subject}.npz').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
