"""`train.evaluate --inception` and `--lpips` of finished runs with files of real size, against the packages.

  python -m bench.models.published_scores --part inception --run runs/maskgit-digits --folder NEW
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
from pathlib import Path
from typing import Any

import numpy as np

from eqxgen.metrics import FeatureRows, Features, frechet, read_statistics, write_statistics
from eqxgen.metrics.frechet import statistics_of
from tests import oracles
from tests.oracles.perceptual import weights
from train import evaluate
from train.evaluators.stream import Stream

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
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps(known | {given.part: found}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


def evaluated(run: Path, folder: Path, *flags: str) -> tuple[dict[str, Any], list[Any]]:
    """What `train.evaluate` writes, and the results of each batch that it took."""
    passed, stream = [], Stream.map

    def recorded(self: Stream, *args: Any) -> Any:
        for result in stream(self, *args):
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

    shapes = json.loads(str(SHAPES["inception"]["shapes"]))
    state = {name: torch.from_numpy(array) for name, array in weights(shapes).items()}
    counters = {f"{name.removesuffix('mean')}x": name for name in state if name.endswith("running_mean")}
    state |= {name.replace("running_x", "num_batches_tracked"): torch.tensor(0) for name in counters}
    # pytorch-fid finds its file where it would have downloaded it to.
    file = folder / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, file)
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


def drawn(run: Path, count: int) -> np.ndarray:
    """The first samples of a run as `train.evaluate` has them, in three channels."""
    import jax

    from train.engine.recipes import asked_of_run
    from train.evaluators.fidelity import Rounded
    from train.parallel import make_mesh

    recipe, record, _ = asked_of_run("evaluate", "", ["--run", str(run)], evaluate.Options, evaluate.form_of)
    finished = recipe.open(run, record, run / "config.json")
    judged = next(e.judged for e in recipe.task(finished.config, run).evaluators if e.judged is not None)
    stream = Stream(make_mesh("", jax.devices()[:1]))
    tree = judged.parts(finished.model(), recipe.task(finished.config, run).program.frozen())
    made = Rounded(judged.draw, judged.dataset.levels)
    images = np.concatenate([*stream.map(made, tree, judged.samples.first(count)._replace(batch=64))])
    return np.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[3] == 1 else images


PARTS = {"inception": inception}

if __name__ == "__main__":
    main()
