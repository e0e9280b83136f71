"""`train.evaluate --inception` and `--lpips` of finished runs with files of real size, against the packages.

  python -m bench.models.published_scores --part inception --run runs/maskgit-digits --folder NEW
  python -m bench.models.published_scores --part spatial --run runs/gan-mnist --folder NEW
  python -m bench.models.published_scores --part lpips --run runs/vqgan-eurosat64 --folder NEW
  python -m bench.models.published_scores --part paths --run RUN_OF_STYLEGAN2 --folder NEW

Needs PyTorch, torchvision, pytorch-fid, torchmetrics and lpips. The weights are drawn, in the published layouts and
sizes, as no published ones can be had offline: what is compared is the path from the files to the numbers. Adds the
part to bench/results/cpu/published_scores.json.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from eqxgen.metrics import FeatureRows, Features, frechet, read_statistics, write_statistics
from eqxgen.metrics.frechet import statistics_of
from tests import oracles
from tests.oracles.perceptual import weights
from train import evaluate
from train.evaluators.examples import Examples
from train.evaluators.stream import Function, Stream

RESULT = Path(__file__).parents[1] / "results" / "cpu" / "published_scores.json"
CHECKED = 64  # images whose features PyTorch computes too
SHAPES = oracles.load("perceptual")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--n", type=int)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    found = PARTS[given.part](given.run, given.folder, given.n)
    found |= {"cpu_seconds": round(time.process_time() - began, 1), "load": round(os.getloadavg()[0], 1)}
    keep(given.part, found)


def keep(part: str, found: dict[str, Any]) -> None:
    """Writes what a part has found so far."""
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps(known | {part: found}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


def evaluated(run: Path, folder: Path, *flags: str) -> tuple[dict[str, Any], list[Any]]:
    """What `train.evaluate` writes, and the results of each batch that it took."""
    passed, stream = [], Stream.map

    def recorded(self: Stream, function: Function, tree: Any, examples: Examples) -> Iterator[Any]:
        for result in stream(self, function, tree, examples):
            passed.append(result)
            yield result

    Stream.map = recorded
    try:
        assert evaluate.main(["--run", str(run), "--evals", "none", "--out", str(folder / "out.json"), *flags]) == 0
    finally:
        Stream.map = stream
    return json.loads((folder / "out.json").read_text()), passed


def inception(run: Path, folder: Path, n: int | None) -> dict[str, Any]:
    """Features of images by pytorch-fid, scores of the features by torchmetrics and pytorch-fid."""
    import torch
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.inception import InceptionScore

    file = inception_file(folder)
    real = np.random.default_rng(0).normal(size=(3000, 2048))
    kept = Features("inception", "")
    write_statistics(folder / "real.npz", statistics_of("real", FeatureRows(features=kept).update(real)))
    size = () if n is None else ("--n", str(n))
    numbers, passed = evaluated(
        run, folder, "--inception", str(file), "--statistics", str(folder / "real.npz"), *size
    )  # fmt: skip
    pool, spatial, logits = (np.concatenate(part) for part in zip(*passed))
    np.savez(folder / "features.npz", pool=pool, spatial=spatial[:CHECKED], logits=logits)
    images = drawn(run, CHECKED)
    theirs = by_pytorch_fid(images, file)
    rows = FeatureRows(features=kept).update(pool)
    own = statistics_of("samples", rows)
    write_statistics(folder / "own.npz", own)
    score = InceptionScore(feature=torch.nn.Identity(), splits=10, normalize=False)
    torch.manual_seed(0)
    order = np.argsort(torch.randperm(len(logits)).numpy())
    score.update(torch.from_numpy(logits[order]))
    torch.manual_seed(0)
    value, deviation = (float(x) for x in score.compute())
    tensors = [torch.from_numpy(x) for x in (own.mean, own.covariance, real.mean(0), np.cov(real, rowvar=False))]
    return {
        "samples": len(pool),
        "bytes": file.stat().st_size,
        "numbers": numbers,
        "features_differ": {
            name: float(np.abs(a[:CHECKED] - b).max() / np.abs(b).max())
            for name, a, b in zip(("pool", "spatial", "logits"), (pool, spatial, logits), theirs)
        },
        "torchmetrics": {"fd": float(_compute_fid(*tensors)), "class_score": value, "class_score_deviation": deviation},
        "distance_to_own_statistics": frechet(rows, read_statistics(folder / "own.npz", kept)).value,
    }


def inception_file(folder: Path) -> Path:
    """Drawn weights where pytorch-fid would have downloaded its own."""
    import torch

    shapes = json.loads(str(SHAPES["inception"]["shapes"]))
    state = {name: torch.from_numpy(array) for name, array in weights(shapes).items()}
    counters = {f"{name.removesuffix('mean')}x": name for name in state if name.endswith("running_mean")}
    state |= {name.replace("running_x", "num_batches_tracked"): torch.tensor(0) for name in counters}
    file = folder / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, file)
    return file


def distances(run: Path, folder: Path, n: int | None) -> dict[str, Any]:
    """Distances of pooled and spatial features to as many training images, from the features by torchmetrics."""
    import torch
    from torchmetrics.image.fid import _compute_fid

    from train.evaluators import published
    from train.evaluators.examples import training_images

    file, count = inception_file(folder), n or 2304
    published._REAL["training"] = lambda dataset: training_images(dataset).first(count)
    numbers, passed = evaluated(run, folder, "--inception", str(file), "--reference", "training", "--n", str(count))
    found = {"samples": count, "bytes": file.stat().st_size, "numbers": numbers}
    for name, part in zip(("fd_inception", "sfd_inception"), zip(*passed)):
        rows = np.concatenate(part).astype(np.float64)
        moments = ((x.mean(0), np.cov(x, rowvar=False)) for x in (rows[:count], rows[count:]))
        theirs = float(_compute_fid(*(torch.from_numpy(x) for both in moments for x in both)))
        found[name] = {"torchmetrics": theirs, "differs": abs(numbers[name] - theirs) / theirs}
    return found


def by_pytorch_fid(images: np.ndarray, file: Path) -> list[np.ndarray]:
    """Pooled features, spatial ones and logits without bias of images in [-1, 1]."""
    import torch

    os.environ["TORCH_HOME"] = str(file.parents[2])
    from pytorch_fid.inception import InceptionV3, fid_inception_v3

    net, middle = InceptionV3([3], resize_input=True, normalize_input=True).eval(), []
    net.blocks[2][6].branch1x1.register_forward_hook(lambda module, given, out: middle.append(out))
    head = fid_inception_v3().fc.weight
    with torch.no_grad():
        x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        pool = torch.cat([net((part + 1) / 2)[0][:, :, 0, 0] for part in x.split(16)])
        spatial = torch.cat(middle)[:, :7].permute(0, 2, 3, 1).flatten(1)
        return [pool.numpy(), spatial.numpy(), (pool @ head.T).numpy()]


def lpips_of_pairs(run: Path, folder: Path, n: int | None) -> dict[str, Any]:
    """LPIPS of a tokenizer's reconstructions by the package lpips, of each net."""
    import torch

    from train.evaluators.fidelity import Rounded

    judged, tree, stream = judged_of(run)
    images = judged.samples.first(CHECKED)._replace(batch=CHECKED)
    (made,) = stream.map(Rounded(judged.draw, judged.dataset.levels), tree, images)
    real, found = images.read(np.arange(CHECKED))["image"], {}
    for net in ("vgg", "alex", "squeeze"):
        file, heads = lpips_files(net, folder)
        numbers, passed = evaluated(run, folder, "--lpips", net, str(file), str(heads))
        ours, similar = (np.concatenate(part) for part in zip(*passed))
        with torch.no_grad():
            theirs = by_lpips(net, heads, torch.float32)(made, real)
        found[net] = {
            "images": len(ours),
            "bytes": file.stat().st_size,
            "numbers": numbers,
            "differ": float(np.abs(ours[:CHECKED] - theirs).max() / theirs.max()),
            "mean_differs": float(abs(numbers[f"lpips_{net}"] - ours.mean()) / ours.mean()),
            "ssim_differs": float(abs(numbers["ssim"] - similar.mean())),
        }
        keep("lpips", found)
    return found


def lengths_of_paths(run: Path, folder: Path, n: int | None) -> dict[str, Any]:
    """Path lengths of a generator by the package lpips in float64, on the images of both ends of each step."""
    import jax.numpy as jnp
    import torch

    judged, tree, stream = judged_of(run)
    count, found = n or CHECKED, {}
    file, heads = lpips_files("vgg", folder)
    for space, sampling, epsilon in (("w", "end", 1e-4), ("z", "full", 1e-3)):
        path = "--path-space", space, "--path-sampling", sampling, "--path-epsilon", str(epsilon)
        numbers, passed = evaluated(run, folder, "--n", str(count), "--lpips", "vgg", str(file), str(heads), *path)
        ours = np.concatenate(passed) / epsilon**2
        paths = judged.samples.first(count)._replace(batch=count)
        (ends,) = stream.map(judged.path(space, sampling), (tree, jnp.float32(epsilon)), paths)
        with torch.no_grad():
            theirs = by_lpips("vgg", heads, torch.float64)(*ends) / epsilon**2
        kept = (theirs >= np.quantile(theirs, 0.01, method="lower")) & (
            theirs <= np.quantile(theirs, 0.99, method="higher")
        )
        mean = float(theirs[kept].mean())
        found[f"{space}, {sampling}, {epsilon:g}"] = {
            "paths": len(ours),
            "numbers": numbers,
            "lpips_in_float64": mean,
            "differs": abs(numbers[f"path_length_vgg_{space}{sampling}"] - mean) / mean,
            "paths_differ": float(np.abs(ours - theirs).max() / theirs.max()),
        }
    return found


def lpips_files(net: str, folder: Path) -> tuple[Path, Path]:
    """Files of drawn weights where torchvision would have downloaded its own, and of the heads."""
    import torch
    import torchvision

    os.environ["TORCH_HOME"] = str(folder)
    name, file = {
        "alex": ("alexnet", "alexnet-owt-7be5be79.pth"),
        "squeeze": ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
        "vgg": ("vgg16", "vgg16-397923af.pth"),
    }[net]
    where, heads = folder / "hub" / "checkpoints" / file, folder / f"{net}.pth"
    where.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.save(getattr(torchvision.models, name)().state_dict(), where)
    drawn = {key: SHAPES[net][key] for key in SHAPES[net] if key.startswith("head")}
    torch.save(
        {f"lin{key[4:]}.model.1.weight": torch.from_numpy(head.reshape(1, -1, 1, 1)) for key, head in drawn.items()},
        heads,
    )
    return where, heads


def by_lpips(net: str, heads: Path, dtype: Any) -> Any:
    """The package's distance of two batches of images in [-1, 1]."""
    import lpips
    import torch

    model = lpips.LPIPS(net=net, model_path=str(heads), verbose=False).eval().to(dtype)
    given = lambda x: torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).to(dtype)

    def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        parts = range(0, len(first), 16)
        found = [model(given(first[at : at + 16]), given(second[at : at + 16])).ravel().numpy() for at in parts]
        return np.concatenate(found)

    return distance


def drawn(run: Path, count: int) -> np.ndarray:
    """The first samples of a run as `train.evaluate` has them, in three channels."""
    from train.evaluators.fidelity import Rounded

    judged, tree, stream = judged_of(run)
    samples = judged.samples.first(count)._replace(batch=count)
    (images,) = stream.map(Rounded(judged.draw, judged.dataset.levels), tree, samples)
    return np.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[3] == 1 else images


def judged_of(run: Path) -> tuple[Any, Any, Stream]:
    """The images of a run that are judged, what draws them, and a stream on one device."""
    import jax

    from train.engine.recipes import asked_of_run
    from train.parallel import make_mesh

    recipe, record, _ = asked_of_run("evaluate", "", ["--run", str(run)], evaluate.Options, evaluate.form_of)
    finished = recipe.open(run, record, run / "config.json")
    task = recipe.task(finished.config, run)
    judged = next(e.judged for e in task.evaluators if e.judged is not None)
    stream = Stream(make_mesh("", jax.devices()[:1]))
    return judged, judged.parts(finished.model(), task.program.frozen()), stream


PARTS = {"inception": inception, "spatial": distances, "lpips": lpips_of_pairs, "paths": lengths_of_paths}

if __name__ == "__main__":
    main()
