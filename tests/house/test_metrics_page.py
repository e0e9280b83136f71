"""The blocks of docs/metrics.md run from top to bottom, and its tables name every metric."""

import re
import runpy

from eqxgen import metrics
from tests.house.layout import CHECKOUT

PAGE = (CHECKOUT / "docs" / "metrics.md").read_text(encoding="utf-8")
# Results of functions, and the sums of streams.
PARTS = {"ClassScore", "DensityCoverage", "Extrapolation", "KernelDistance", "Mean", "Memorisation", "PathLength"}
PARTS |= {"PrecisionRecall", "Score", "nearest"}


def test_the_blocks_run(capsys, tmp_path):
    source = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    path = tmp_path / "page.py"
    path.write_text(source, encoding="utf-8")
    runpy.run_path(str(path))
    assert "fd_judge" in capsys.readouterr().out


def test_every_metric_is_on_the_page():
    assert not [name for name in metrics.__all__ if name not in PARTS and name not in PAGE]
