"""The site's pages: all are in the navigation, and their links lead somewhere."""

import re

import pytest

from tests.house.layout import CHECKOUT

PAGES = sorted((CHECKOUT / "docs").glob("*.md"))


def test_every_page_is_in_the_navigation_once():
    entries = re.findall(r"^  - .+: (\S+\.md)$", (CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(entries) == [page.name for page in PAGES], "mkdocs.yml: nav must name each page of docs once"


@pytest.mark.parametrize(
    "path", [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *PAGES], ids=lambda path: path.name
)
def test_a_relative_link_leads_to_a_file(path):
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\((?!https:|#)([^)#\s]+)", prose)
    assert not [link for link in links if not (path.parent / link).exists()]
