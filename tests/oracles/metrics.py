"""torchmetrics' scores of random features, images, labels and numbers, in float64."""

import warnings

import numpy as np

from tests.oracles import Cases


def cases() -> Cases:
    import torch
    from torchmetrics.functional.classification import multiclass_matthews_corrcoef
    from torchmetrics.functional.image import structural_similarity_index_measure
    from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.inception import InceptionScore
    from torchmetrics.image.kid import poly_mmd

    rng = np.random.default_rng(0)
    mixed = lambda rows, shift: rng.normal(size=(rows, 7)) @ rng.normal(size=(7, 7)) + shift
    first, second = mixed(61, 0.0), mixed(47, 0.3)
    moments = [torch.from_numpy(part) for x in (first, second) for part in (x.mean(axis=0), np.cov(x, rowvar=False))]
    logits = 2 * rng.normal(size=(53, 5))
    with warnings.catch_warnings(action="ignore"):  # of the deviation over one split, and of kept features
        score = InceptionScore(feature=torch.nn.Identity(), splits=1).set_dtype(torch.float64)
        score.update(torch.from_numpy(logits))
        inception = np.asarray(score.compute()[0])
    found: Cases = {
        "frechet": {"first": first, "second": second, "value": np.asarray(_compute_fid(*moments))},
        "kernel": {
            "first": first[:40],
            "second": second[:40],
            "value": np.asarray(
                poly_mmd(torch.from_numpy(first[:40]), torch.from_numpy(second[:40]), degree=3, gamma=None, coef=1.0)
            ),
        },
        "class score": {"logits": logits, "value": inception},
    }
    for name, shape in {"grey": (13, 17, 1), "colour": (23, 12, 3)}.items():
        x = rng.uniform(-1, 1, shape)
        y = np.clip(x + 0.3 * rng.normal(size=shape), -1, 1)
        batch = [torch.from_numpy(np.moveaxis(image, -1, 0)[None].copy()) for image in (x, y)]
        similarity = structural_similarity_index_measure(*batch, data_range=2.0)
        found[f"ssim {name}"] = {"first": x, "second": y, "value": np.asarray(similarity)}
    guesses, labels = rng.integers(0, 4, 97), rng.integers(0, 4, 97)
    guesses = np.where(rng.uniform(size=97) < 0.5, labels, guesses)
    mcc = multiclass_matthews_corrcoef(torch.from_numpy(guesses), torch.from_numpy(labels), 4)
    found["labels"] = {"guesses": guesses, "labels": labels, "mcc": np.asarray(mcc)}
    a = np.round(rng.normal(size=83), 1)  # with equal values
    b = a + rng.normal(size=83)
    pair = torch.from_numpy(a), torch.from_numpy(b)
    spearman, pearson = spearman_corrcoef(*pair), pearson_corrcoef(*pair)
    found["correlation"] = {"first": a, "second": b, "spearman": spearman.numpy(), "pearson": pearson.numpy()}
    return found
