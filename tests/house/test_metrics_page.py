"""The blocks of docs/metrics.md run from top to bottom, and its tables name every metric."""

from eqxgen import metrics
from tests.house.layout import CHECKOUT
from tests.house.pages import run_blocks

PAGE = (CHECKOUT / "docs" / "metrics.md").read_text(encoding="utf-8")
# Results of functions, and the sums of streams.
PARTS = {"ClassScore", "DensityCoverage", "Extrapolation", "KernelDistance", "Mean", "Memorisation", "PathLength"}
PARTS |= {"PrecisionRecall", "Score", "nearest"}


def test_the_blocks_run(capsys, tmp_path):
    run_blocks("metrics", tmp_path)
    assert "fd_judge" in capsys.readouterr().out


def test_every_metric_is_on_the_page():
    assert not [name for name in metrics.__all__ if name not in PARTS and name not in PAGE]
