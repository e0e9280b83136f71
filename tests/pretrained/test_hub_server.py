"""Models of a hub over HTTPS on this machine: revisions, digests, downloads that are cut, pages that are no hub's."""

import shutil

import pytest

from tests.devices import printed
from tests.pretrained.hub_server import SHA

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed; pip install huggingface_hub")

WHOLE = {"config.json": True, "model.safetensors": True}
ERRORS = {
    "altered": "model.safetensors: expected the digest ",
    "missing": f"owner/missing@{SHA}: cannot be fetched, and is not in the cache: 404 ",
    "html": f"owner/html@{SHA}: cannot be fetched, and is not in the cache: Expecting value",
    "short": f"owner/short@{SHA}: cannot be fetched, and is not in the cache: ",
    "plain": f"owner/plain@{SHA}: cannot be fetched, and is not in the cache: ",
}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the server's certificate; install it")
def test_a_hub_gives_the_files_that_it_lists_or_one_line():
    found = printed("tests.pretrained.hub_server", count=1, timeout=100)
    cases = found["cases"]
    for case in ("whole", "cut", "paths", "whole again"):
        assert cases[case].get("files") == WHOLE, (case, cases[case])
    begin = [int(span.removeprefix("bytes=").rstrip("-")) for span in cases["cut"]["ranges"]]
    assert begin
    assert 0 < begin[0] < 200_000  # a download goes on where it was cut
    assert not found["outside"]
    assert cases.keys() == ERRORS.keys() | {"whole", "cut", "paths", "whole again"}
    for case, start in ERRORS.items():
        said = cases[case]["error"]
        assert start in said
        assert said.isprintable()
        assert len(said) < 500
