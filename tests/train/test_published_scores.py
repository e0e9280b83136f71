"""`train.evaluate --inception` and `--lpips`: scores by published networks, under their honest names."""

import hashlib
from functools import partial
from types import SimpleNamespace
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import DCGANConfig, R3GANConfig, StyleGAN2Config
from eqxgen.metrics import class_score, frechet_distance, read_statistics, ssim
from eqxgen.models import DCGANGenerator, R3GANGenerator, StyleGAN2Generator
from eqxgen.models.inception import Inception
from eqxgen.models.lpips import NETS
from eqxgen.nn import Projection, WithState
from tests.arrays import filled
from tests.full import FULL
from train import evaluate
from train._errors import UsageError, UserError
from train._files import check_writable
from train.config.data import DataConfig
from train.config.evals import Evaluation
from train.config.nets import LpipsNet, PerceptualNet
from train.data import load
from train.evaluators import published
from train.evaluators.base import Evaluator
from train.evaluators.examples import held_out_images, training_images
from train.evaluators.fidelity import Judged
from train.evaluators.stream import Stream
from train.parallel import make_mesh
from train.tasks.draw import labelled
from train.tasks.gan.paths import path_images


class Linear(eqx.Module):
    """A stand-in for StyleGAN2, whose image is a product with the style, and the style one with the latent."""

    styles: jax.Array
    images: jax.Array
    label_embedding: None = None
    mapping: None = None
    layers: int = eqx.field(static=True, default=2)
    config: SimpleNamespace = eqx.field(static=True, default_factory=lambda: SimpleNamespace(latent_dim=3))

    def style(self, latent, label):
        return self.styles @ latent

    def noise(self, key):
        return ()

    def synthesis(self, styles, noise):
        return (styles[1] @ self.images).reshape(4, 4, 1)


class Net(eqx.Module):
    """A stand-in for Inception, of 4 features."""

    head: Projection

    def judged(self, image):
        assert image.shape[2] == 3, "grey images have three channels"
        rows = jnp.mean(image, axis=(1, 2))
        return rows[:4] ** 2 + rows[4:], rows, 3 * rows[:3]


NET = Net(Projection(4, 3, key=jr.key(0)))


def noisy(tree, example):
    return jnp.clip(example["image"] + tree * jnp.sin(40 * example["image"]), -1, 1)


@pytest.fixture
def judged(monkeypatch, tmp_path):
    """Held-out digits with noise, judged by the stand-in."""
    (tmp_path / "net.pth").write_bytes(b"weights")
    monkeypatch.setattr(published.inception_files, "from_pretrained", lambda file: NET)
    dataset = load(DataConfig(name="digits"))
    return Judged(dataset, noisy, held_out_images(dataset), lambda model, _: model, paired=True)


def all_of(images):
    return images.read(np.arange(images.size))["image"]


def rows_of(images):
    return [np.stack(part) for part in zip(*(NET.judged(np.repeat(x, 3, axis=2)) for x in images))]


def stream():
    return Stream(make_mesh("", jax.devices()[:1]), say=lambda text: None)


def grey(images, levels):
    return np.round((images + 1) * ((levels - 1) / 2)) * (2 / (levels - 1)) - 1


def test_scores_are_those_of_the_features_under_names_that_say_whose(judged, tmp_path):
    evaluator = published.inception_scores(
        judged, tmp_path / "net.pth", reference="training", written=tmp_path / "a.npz"
    )
    found = evaluator.run(jnp.float32(0.3), None, stream())
    images = held_out_images(judged.dataset)
    made = grey(np.asarray(jax.vmap(lambda x: noisy(0.3, {"image": x}))(all_of(images))), 17)
    samples = rows_of(made)
    real = rows_of(all_of(training_images(judged.dataset)))
    assert found["fd_inception"] == pytest.approx(frechet_distance(samples[0], real[0]), rel=1e-4)
    assert found["sfd_inception"] == pytest.approx(frechet_distance(samples[1], real[1]), rel=1e-4)
    assert found["class_score_inception"] == pytest.approx(class_score(samples[2]).value, rel=1e-5)
    assert {"kid_inception", "recall_inception", "fd_inception_infinity_low", "fd_inception_high"} <= found.keys()
    assert evaluator.notes == {"inception_sha256": hashlib.sha256(b"weights").hexdigest()}
    kept = read_statistics(tmp_path / "a.npz")
    np.testing.assert_allclose(kept.mean, real[0].mean(0), atol=1e-6)
    np.savez(tmp_path / "other.npz", mu=kept.mean, sigma=kept.covariance)
    given = published.inception_scores(judged, tmp_path / "net.pth", statistics=tmp_path / "other.npz")
    again = given.run(jnp.float32(0.3), None, stream())
    for name in ("fd_inception", "fd_inception_low", "fd_inception_infinity", "class_score_inception"):
        assert again[name] == pytest.approx(found[name], rel=1e-5), name
    assert "sfd_inception" not in again


def test_the_published_file_alone_makes_an_fid_an_sfid_and_an_is(judged, tmp_path, monkeypatch):
    sha256 = "6726825d" + 56 * "0"
    monkeypatch.setattr(published.hashlib, "sha256", lambda data: SimpleNamespace(hexdigest=lambda: sha256))
    found = published.inception_scores(judged, tmp_path / "net.pth").run(jnp.float32(0.3), None, stream())
    assert {"FID", "FID_low", "FID_infinity", "sFID", "IS", "IS_deviation", "kid_inception"} <= found.keys()


def test_the_inception_gives_its_features_a_branch_in_the_middle_and_logits_without_bias():
    net = eqx.filter_eval_shape(lambda key: Inception(key=key), jr.key(0))
    shapes = eqx.filter_eval_shape(lambda net, image: net.judged(image), net, jnp.zeros((32, 32, 3)))
    assert [shape.shape for shape in shapes] == [(2048,), (17 * 17 * 7,), (1008,)]


def test_reconstructions_have_the_distance_of_a_net_and_their_similarity(judged, tmp_path, monkeypatch):
    distance = lambda net, file, heads: lambda made, image: jnp.mean(jnp.abs(made - image))
    monkeypatch.setattr(published.lpips_net, "with_files", distance)
    wide = lambda images: np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    dataset = judged.dataset
    dataset = type(dataset)(**{field: getattr(dataset, field) for field in dataset.__dataclass_fields__} | {
        "train_images": wide(dataset.train_images), "test_images": wide(dataset.test_images)
    })  # fmt: skip
    images = held_out_images(dataset).first(20)
    pairs = Judged(dataset, noisy, images, lambda model, _: model, paired=True)
    (tmp_path / "h").write_bytes(b"heads")
    found = published.pair_scores(pairs, "vgg", tmp_path / "net.pth", tmp_path / "h").run(
        jnp.float32(0.3), None, stream()
    )
    real = images.read(np.arange(20))["image"]
    made = grey(np.asarray(jax.vmap(lambda x: noisy(0.3, {"image": x}))(real)), 17)
    assert found["lpips_vgg"] == pytest.approx(np.mean(np.abs(made - real)), rel=1e-5)
    assert found["ssim"] == pytest.approx(
        np.mean(np.asarray(jax.vmap(ssim)(jnp.asarray(made), jnp.asarray(real)))), rel=1e-5
    )


SUM = lambda net, file, heads: lambda made, image: jnp.sum((made - image)[..., 0] ** 2)


@pytest.mark.parametrize(("space", "sampling"), [(None, "end"), ("w", "full"), ("z", "end")])
def test_paths_have_the_length_of_their_ends_in_w_and_of_their_speed_on_the_sphere_in_z(
    judged, tmp_path, monkeypatch, space, sampling
):
    monkeypatch.setattr(published.lpips_net, "with_files", SUM)
    (tmp_path / "h").write_bytes(b"heads")
    rng = np.random.default_rng(0)
    styles, images = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 3), (3, 16)))
    net = Linear(styles, images)
    tree = lambda model, _: (model, jr.key(5), jnp.float32(1))
    paths = judged._replace(parts=tree, samples=labelled(np.zeros(40, int)), path=partial(path_images, "stylegan2"))
    evaluator = published.path_scores(
        paths, "vgg", tmp_path / "net.pth", tmp_path / "h", space=space, sampling=sampling, epsilon=0.01
    )
    found = evaluator.run(WithState(net, None), None, stream())
    first, second = np.asarray(jax.vmap(ends)(jnp.arange(40)))
    if space == "z":
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
        cosine = np.sum(a * b, axis=1, keepdims=True)
        angle = np.arccos(cosine)
        change = (b - cosine * a) / np.sin(angle) * angle  # the velocity at the first end
    else:
        change = second - first
    lengths = np.sort(np.sum((change @ np.asarray(net.styles).T @ np.asarray(net.images)) ** 2, axis=1))
    name = f"path_length_vgg_{space or 'w'}{sampling}"
    assert found[name] == pytest.approx(np.mean(lengths), rel=0.03 if space == "z" else 1e-3)
    assert found[f"{name}_deviation"] == pytest.approx(np.std(lengths), rel=0.05)
    assert evaluator.notes["path_length"] == "40 paths, epsilon 0.01"


def ends(index):
    keys = jr.split(jr.fold_in(jr.key(5), index), 4)
    return tuple(jr.normal(key, (3,)) for key in keys[:2])


def test_ppl_is_said_of_the_published_vgg_with_the_published_heads_alone(judged, tmp_path, monkeypatch):
    monkeypatch.setattr(published.lpips_net, "with_files", SUM)
    hashes = {b"weights": "397923af", b"heads": "a78928a0"}
    sha256 = lambda data: SimpleNamespace(hexdigest=lambda: hashes.get(data, "00") + 56 * "0")
    monkeypatch.setattr(published.hashlib, "sha256", sha256)
    for name, heads in {"PPL": b"heads", "path_length_vgg": b"others"}.items():
        (tmp_path / "h").write_bytes(heads)
        paths = judged._replace(path=partial(path_images, "dcgan"), samples=labelled(np.zeros(4, int)))
        scores = published.path_scores(paths, "vgg", tmp_path / "net.pth", tmp_path / "h")
        monkeypatch.setattr(Stream, "map", lambda *_: [np.ones(4)])
        assert set(scores.run(None, None, stream())) == {f"{name}_zend", f"{name}_zend_deviation"}
    features = published.pair_scores(judged, "vgg", tmp_path / "net.pth", tmp_path / "h").notes["lpips_sha256"]
    assert features.startswith("00")


@pytest.mark.parametrize("family", ["dcgan", "stylegan2", *(["r3gan"] if FULL else [])])
def test_the_images_of_a_generator_s_path_are_its_own(family):
    sizes = {
        "dcgan": lambda key: DCGANGenerator(8, 1, 10, DCGANConfig(latent_dim=4, width=4, base=2, label_dim=3), key=key),
        "r3gan": lambda key: R3GANGenerator(8, 1, 10, R3GANConfig(4, (8, 6), (2, 2), (1, 1), label_dim=3), key=key),
        "stylegan2": lambda key: StyleGAN2Generator(
            8, 1, 10, StyleGAN2Config(latent_dim=6, mapping=1, width=32, max_width=6), key=key
        ),
    }
    net = filled(sizes[family])
    tree = (WithState(net, net.init_state()), jr.key(1)), jnp.float32(1e-4)
    example = {"index": jnp.int32(3), "label": jnp.int32(7)}
    path = path_images(family, None, "full")
    assert path.space == ("w" if family == "stylegan2" else "z")
    first, second = jax.jit(path)(tree, example)
    assert first.shape == (8, 8, 1)
    assert 0 < float(jnp.max(jnp.abs(first - second))) < 0.1


def test_nets_of_lpips_are_said_once():
    assert set(NETS) == set(get_args(LpipsNet))
    assert set(get_args(PerceptualNet)) == {*NETS, "inception"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"path_space": "w"}, "path_space goes with lpips, which was not given"),
        ({"path_epsilon": 1e-3}, "path_epsilon goes with lpips, which was not given"),
        ({"lpips": ("vgg", "a", "b"), "path_epsilon": 1e-8}, r"path_epsilon must be in \[1e-6, 1\)"),
        ({"statistics": "a.npz"}, "statistics goes with inception, which was not given"),
        ({"reference": "training"}, "reference goes with inception, which was not given"),
        ({"inception": "a", "write_statistics": "a.txt"}, "write_statistics must end in .npz: got 'a.txt'"),
        ({"inception": "a", "statistics": "a.npz", "reference": "training"}, "statistics takes the place of images"),
        ({"lpips": ("vgg", "a")}, "lpips must be one of vgg, alex, squeeze and two files: got vgg a"),
        ({"lpips": ("resnet", "a", "b")}, "lpips must be one of vgg, alex, squeeze and two files: got resnet a b"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(flags, message):
    with pytest.raises(ValueError, match=message):
        evaluate.Options(run="r", **flags)


def test_what_cannot_be_scored_is_one_line_before_anything_is_drawn(judged, tmp_path):
    file = tmp_path / "net.pth"
    few = judged._replace(samples=judged.samples.first(19))
    wrong = {
        "--inception must have more samples than 4 features and 15 sizes together: got 19; give --eval-samples 20": (
            lambda: published.inception_scores(few, file)
        ),
        "--statistics .*none.npz": lambda: published.inception_scores(judged, file, statistics=tmp_path / "none.npz"),
        "--lpips .*none.pth": lambda: published.pair_scores(judged, "vgg", tmp_path / "none.pth", file),
        "--lpips goes with runs that reconstruct images": (
            lambda: published.pair_scores(judged._replace(paired=False), "vgg", file, file)
        ),
        "--path-space w must have a model with style vectors, stylegan2: got r3gan; give z": (
            lambda: path_images("r3gan", "w", "end")
        ),
        "--path-sampling goes with runs of train.gan: got one of train.maskgit": lambda: evaluate.published(
            evaluate.Options(run="r", lpips=("vgg", "a", "b"), path_sampling="full"), [offered(judged)], "maskgit"
        ),
        "--out .*: must be a file: it is a folder": lambda: check_writable(tmp_path, "--out"),
        "--write-statistics .*net.pth/a/b.npz: cannot be written: Not a directory": (
            lambda: check_writable(file / "a" / "b.npz", "--write-statistics")
        ),
    }
    for message, call in wrong.items():
        with pytest.raises((UsageError, UserError), match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def offered(judged):
    return Evaluator(Evaluation("fidelity", ()), lambda *_: {}, judged=judged)


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    check_writable(tmp_path / "new" / "folder" / "a.npz", "--write-statistics")
    assert not [*tmp_path.iterdir()]


def test_a_run_without_judged_images_has_no_such_scores():
    options = evaluate.Options(run="r", inception="a.pth")
    with pytest.raises(UsageError, match="--inception goes with images that are judged, which train"):
        evaluate.published(options, (), "gpt")
