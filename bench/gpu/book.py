"""Results of a run of `bench.gpu` so far, in a file that outlives the process."""

import json
import pathlib
from typing import Any

# The sections, most important first, each with its share of the time.
SHARES = {
    "right: attention": 0.2,
    "right: norms": 0.07,
    "machine": 0.03,
    "attention": 0.34,
    "steps": 0.2,
    "special": 0.08,
    "norms": 0.08,
}
QUICK = ("right: attention", "right: norms")


class Book:
    """The results so far, in `folder/gpu.json`, and the running contender, in `folder/now.json`."""

    def __init__(self, folder: pathlib.Path):
        self.path, self.now = folder / "gpu.json", folder / "now.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.result: dict[str, Any] = {"about": {}, "stopped": [], "sections": {}}
        self.load()

    def load(self) -> None:
        """Read what another process wrote."""
        if self.path.exists():
            self.result = json.loads(self.path.read_text(encoding="utf-8"))

    def clear(self) -> None:
        """Forget an earlier run."""
        self.path.unlink(missing_ok=True)
        self.now.unlink(missing_ok=True)

    def has(self, section: str, case: str) -> bool:
        return any(row["case"] == case for row in self.result["sections"].get(section, []))

    def put(self, section: str, case: str, row: dict[str, Any]) -> None:
        row = {"case": case} | _rounded(row)
        self.result["sections"].setdefault(section, []).append(row)
        print(section, json.dumps(row), flush=True)
        self.write()

    def write(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
        part.replace(self.path)

    def start(self, section: str, case: str, name: str) -> None:
        self.now.write_text(json.dumps({"section": section, "case": case, "name": name}), encoding="utf-8")

    def stopped(self, why: str) -> None:
        """Record a stop of the process: the running contender is left out from now on; a row without one is done."""
        at = (
            json.loads(self.now.read_text(encoding="utf-8"))
            if self.now.exists()
            else {"section": "", "case": "", "name": ""}
        )
        self.result["stopped"].append(at | {"why": why})
        if not at["name"] and at["case"]:
            self.put(at["section"], at["case"], {"left out": {"the row": why}})
        self.write()

    def without(self) -> dict[str, str]:
        return {
            x["name"]: f"it stopped the process at {x['case']}: {x['why']}" for x in self.result["stopped"] if x["name"]
        }


def _rounded(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _rounded(v) for k, v in x.items()}
    return float(f"{x:.4g}") if isinstance(x, float) else x
