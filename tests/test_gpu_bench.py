"""The machinery of the GPU benchmark and of the tuning, on a CPU and in tiny sizes: nothing here measures a GPU."""

import json
import sys

import jax
import pytest

from bench import gpu, tune_attention
from bench.gpu_race import Clock, race, try_sides
from kernels.attention import choice


def test_every_section_writes_rows_and_the_table_names_them(tmp_path, capsys, monkeypatch):
    # Importing it takes longer than all the rest.
    monkeypatch.setitem(sys.modules, "torch", None)
    with jax.numpy_rank_promotion("allow"):
        code = gpu.main(["--tiny", "--minutes", "1", "--out", str(tmp_path), "--only", "machine", "attention"])
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert code == 0
    assert list(result["sections"]) == ["machine", "attention"]
    grid = result["sections"]["attention"]
    assert [row["case"] for row in grid] == [f"{d} D32 T32 {m}" for m in ("full", "causal") for d in ("forward", "backward")]
    for row in grid:
        assert {"ours", "jax.nn xla"} <= set(row["ms"])
        assert {"mosaic_gpu", "torch sdpa"} <= set(row["left out"])
        assert row["times ours"]["jax.nn xla"] == pytest.approx(row["ms"]["jax.nn xla"] / row["ms"]["ours"], rel=1e-2)
    assert result["about"]["versions"]["jax"]
    assert "backward D32 T32 causal" in (tmp_path / "gpu.md").read_text()
    assert "## machine" in capsys.readouterr().out


def test_a_row_that_does_not_fit_the_budget_is_listed_as_left_out(tmp_path):
    result = gpu.run(["correctness", "norms", "steps"], 0.0, True, tmp_path)
    assert result["sections"] == {
        "correctness": [{"left out": "the time budget"}],
        "norms": [{"case": "layer_norm-8x16-scale-bias", "left out": "the time budget"}],
        "steps": [{"case": "tiny", "left out": "the time budget"}],
    }


def test_a_wrong_kernel_fails_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(gpu.SECTIONS, "correctness", (lambda clock, tiny: iter([{"case": "x", "triton ok": False}]), 1.0))
    assert gpu.main(["--tiny", "--quick", "--out", str(tmp_path)]) == 1


def test_without_a_gpu_both_commands_say_so(capsys):
    for command in (gpu.main, tune_attention.main):
        with pytest.raises(SystemExit):
            command([])
        assert "no GPU: jax runs on cpu" in capsys.readouterr().err


def test_contenders_take_turns_and_one_that_fails_leaves_its_reason():
    order = []

    def refuse():
        raise NotImplementedError("not here\nat all")

    sides, reasons = try_sides({"a": lambda: lambda calls: order.append("a"), "b": lambda: lambda calls: order.append("b"), "c": refuse})
    assert reasons == {"c": "NotImplementedError: not here"}
    order.clear()
    assert set(race(sides, 0.0, rounds=4)) == {"a", "b"}
    assert order == ["a", "a", "b", "b", *"abbaabba"]


def test_the_measured_order_puts_the_wrong_last_and_the_refused_before_them():
    assert tune_attention.orders({"xla": 3.0, "cudnn": 2.0, "triton": 1.0}, {"triton"}) == ("cudnn", "xla", "mosaic_gpu", "triton")


def test_tuning_writes_a_table_that_can_be_read_and_keeps_other_devices(tmp_path, monkeypatch):
    path = tmp_path / "choice.json"
    other = choice.Row("another GPU", "float32", 64, 512, "none", "forward", choice.NAMES)
    choice.write([other], path)
    for name, value in (("DTYPES", ("float32",)), ("LENGTHS", {512: 16}), ("HEAD_DIMS", (32,)), ("MASKS", ("none",))):
        monkeypatch.setattr(tune_attention, name, value)
    measured = tune_attention.tune(Clock(60.0), path, tiny=True)
    assert [row.direction for row in measured] == ["forward", "backward"]
    assert all(row.order[0] == "xla" for row in measured)
    assert choice.read(path.read_text()) == sorted([other, *measured], key=lambda row: row.key)


@pytest.mark.parametrize(("device", "name"), [("NVIDIA H200", "h200"), ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb")])
def test_results_lie_in_the_folder_of_their_device(device, name):
    assert gpu.folder(device) == gpu.RESULTS / name
