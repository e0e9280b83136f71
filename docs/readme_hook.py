"""The README as an index page shows it, where pictures and links into the checkout would be broken."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    """Sets the long description: the README as `standalone` has it."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": standalone(text)}


def standalone(text: str) -> str:
    """Markdown without pictures and links to files beside it, and with the commands of an installed package."""
    text = re.sub(r"^!\[[^\]]*\]\((?!https:)[^)]*\)\n\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\((?!https:)[^)]*\)", r"\1", text)
    text = text.replace(" The picture above is its last grid.", "").replace('install -e ".[', 'install "eqxgen[')
    return text.replace("python -m train.", "eqxgen ")
