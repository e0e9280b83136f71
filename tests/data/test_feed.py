"""Batches made ahead of their step: the same in whatever way they are made, and every fault named in the main
thread.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data import DataConfig, DataError, DataStalled, Order, load, uniforms
from train.data.feed.feed import Feed, pad_batch

STEPS, BATCH = 6, 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 3 classes of 10 small pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


def write_pictures(folder, count=10, side=4):
    draw = np.random.default_rng(0)
    for name in "abc":
        (folder / name).mkdir()
        for index in range(count):
            Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8)).save(folder / name / f"{index}.png")


def opened(folder, **changes):
    """The data set, and the arrays of a part of a batch, with a draw of its own for each place."""
    data = load(DataConfig(str(folder), **changes))

    def make(part):
        noise = uniforms(7, part.step, part.index, 1).astype(np.float32)
        return {
            "image": data.normalise(data.train_images[part.example]),
            "label": data.train_labels[part.example],
            "noise": noise,
        }

    return data, make


def batches(source, make, order, first=0, last=STEPS, depth=2, seen=None, say=print, **changes):
    """Those of some steps, which are in `seen` too when one fails."""
    seen = [] if seen is None else seen
    with Feed(make, source, order, first=first, last=last, config=DataConfig(**changes), depth=depth, say=say) as feed:
        for _ in range(first, last):
            seen.append(feed.take())
    return seen


def equal(first, second):
    return all(
        one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)
        for one, two in zip(first, second)
    )


READERS = [
    ("threads", {"memory": 0.0, "threads": 4}, {}),
    ("one thread", {"memory": 0.0, "threads": 1}, {}),
    ("no prefetch", {}, {"depth": 0}),
    ("worker processes", {"memory": 0.0, "threads": 2, "workers": 2}, {}),
]


@pytest.mark.parametrize(("reading", "changes"), [case[1:] for case in READERS], ids=[case[0] for case in READERS])
def test_batches_are_the_same_however_they_are_read(reading, changes, pictures):
    data, make = opened(pictures)
    order = Order(3, BATCH, len(data.train_images))
    expected = batches(data.train_images, make, order)
    lazy, read = opened(pictures, **reading)
    assert lazy.image_shape == data.image_shape
    np.testing.assert_array_equal(lazy.test_images, data.test_images)
    found = batches(lazy.train_images, read, order, **reading, **changes)
    assert equal(found, expected)
    assert expected[0]["image"].shape == (BATCH, 4, 4, 3)
    assert expected[0]["index"].tolist() == list(range(BATCH))


def test_the_shares_of_processes_make_up_the_batch_with_all_its_draws(pictures):
    data, make = opened(pictures, memory=0.0)
    whole = batches(data.train_images, make, Order(3, BATCH, 24))
    shares = [batches(data.train_images, make, Order(3, BATCH, 24, rows)) for rows in np.arange(BATCH).reshape(4, 2)]
    for step, batch in enumerate(whole):
        for name, array in batch.items():
            np.testing.assert_array_equal(np.concatenate([share[step][name] for share in shares]), array)


@pytest.mark.parametrize("memory", [4.0, 0.0], ids=["in memory", "in files"])
def test_a_feed_begun_at_any_step_gives_what_the_whole_one_gave_from_there(memory, pictures):
    data, make = opened(pictures, memory=memory)
    order = Order(3, 5, len(data.train_images))
    steps = 40 if memory else 12
    whole = batches(data.train_images, make, order, 0, steps)
    for first in range(1, steps):
        assert equal(batches(data.train_images, make, order, first, steps), whole[first:]), first


def test_the_position_of_the_data_is_told_in_epochs():
    assert Order(0, 8, 10).position(6) == {"step": 6, "epoch": 4, "offset": 8}


def test_a_batch_is_filled_up_with_examples_of_no_weight():
    arrays = {"x": np.arange(5, dtype=np.float32), "index": np.arange(5, dtype=np.int32)}
    padded = pad_batch(arrays, 4)
    assert padded["x"].tolist() == [0, 1, 2, 3, 4, 0, 0, 0]
    assert padded["weight"].tolist() == [1] * 5 + [0] * 3
    assert padded["weight"].dtype == np.float32
    assert pad_batch(arrays, 5)["weight"].tolist() == [1] * 5
    for wrong in ({}, {"x": np.zeros(0)}, {"x": np.zeros(2), "y": np.zeros(3)}):
        with pytest.raises(ValueError, match="the same number of examples, 1 or more"):
            pad_batch(wrong, 4)


def test_draws_depend_on_every_argument_and_on_nothing_else():
    places = np.arange(64, dtype=np.int32)
    draws = uniforms(1, 2, places, 3)
    np.testing.assert_array_equal(uniforms(1, 2, places[50:], 3), draws[50:])
    assert ((draws >= 0) & (draws < 1)).all()
    assert abs(draws.mean() - 0.5) < 0.1
    others = [uniforms(2, 2, places, 3), uniforms(1, 3, places, 3), uniforms(1, 2, places, 3, purpose=1)]
    assert all((draws != other).all() for other in others)
    assert uniforms(0, 0, places[:2], 2)[1].tolist() == [0.08665198221933101, 0.635531779794157]


def test_a_feed_says_how_long_it_was_waited_for():
    order, source = Order(0, 4, 16), np.arange(16)

    def slowly(part):
        time.sleep(0.05)
        return {"x": source[part.example]}

    with Feed(slowly, source, order, first=0, last=6, config=DataConfig()) as feed:
        for _ in range(3):
            feed.take()
        hurried = feed.waited
        for _ in range(3):
            time.sleep(0.2)
            feed.take()
        assert feed.waited - hurried < 0.05 < 0.1 < hurried


def damaged(path):
    path.write_bytes(path.read_bytes()[:40])


def missing(path):
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "reading", "message"),
    [
        (damaged, {"threads": 3}, "expected a whole picture"),
        (missing, {"threads": 2, "workers": 1}, "expected a readable file, got No such file"),
    ],
)
def test_an_example_that_cannot_be_read_is_named_at_its_step_and_the_rest_goes_on_once_it_is_there(
    spoil, reading, message, tmp_path
):
    write_pictures(tmp_path)
    data, make = opened(tmp_path, memory=0.0)
    order = Order(3, BATCH, len(data.train_images))
    whole = batches(data.train_images, make, order)
    example = int(order.part(2).example[3])
    path = tmp_path / data.train_images.name(example)
    content = path.read_bytes()
    spoil(path)
    before = waiting_threads()
    seen = []
    with pytest.raises(DataError, match=rf"{path}: {message}.*\(example {example}, step 2\)"):
        batches(data.train_images, make, order, seen=seen, **reading)
    assert len(seen) == 2
    assert equal(seen, whole)
    path.write_bytes(content)
    assert equal(batches(data.train_images, make, order, 2), whole[2:])
    deadline = time.monotonic() + 5
    while waiting_threads() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not waiting_threads() - before
    assert not multiprocessing.active_children()


def waiting_threads():
    """Those that would keep the interpreter from ending."""
    return {thread for thread in threading.enumerate() if not thread.daemon}


def test_a_mistake_in_the_code_keeps_its_type_and_tells_the_example(pictures):
    data, make = opened(pictures, memory=0.0)

    def wrong(part):
        if part.step == 1:
            raise ZeroDivisionError("oh")
        return make(part)

    with pytest.raises(ZeroDivisionError) as caught:
        batches(data.train_images, wrong, Order(3, 4, 24))
    assert caught.value.__notes__[0].startswith("in example ")


def test_a_read_that_hangs_is_told_and_ends_the_run_when_its_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setattr("train.data.feed.feed._QUIET", 0.3)
    write_pictures(tmp_path)
    data, make = opened(tmp_path, memory=0.0)
    order = Order(3, BATCH, len(data.train_images))
    example = int(order.part(1).example[0])
    path = tmp_path / data.train_images.name(example)
    path.unlink()
    os.mkfifo(path)  # to open it waits for a writer who never comes
    lines = []
    with pytest.raises(
        DataStalled,
        match=rf"{path}: expected an example within --data.timeout 1 s, got none \(example {example}, step 1\)",
    ):
        batches(data.train_images, make, order, say=lines.append, timeout=1.0)
    assert len(lines) == 1
    assert str(path) in lines[0]
    path.open("wb").close()


def test_every_fault_of_the_loader_is_known_in_five_seconds_and_leaves_nothing_behind(tmp_path):
    line = [sys.executable, "-m", "bench.reliability.loader_faults", "--count", "1"]
    line += ["--folder", str(tmp_path / "work"), "--out", str(tmp_path / "R12.json")]
    done = subprocess.run(line, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = json.loads((tmp_path / "R12.json").read_text())
    assert (numbers["reached"], numbers["orphans"], numbers["resumed"]) == (True, 0, 4)
