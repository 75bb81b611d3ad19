"""Lists and scripts travel packed where the browser can unpack them; the page with its token never does."""

import gzip
import json
import re

from tests.console.conftest import Caller
from tests.console.fake_service import FakeService

PACKED = {"Accept-Encoding": "gzip, br"}


def test_a_long_list_travels_packed(caller: Caller, service: FakeService) -> None:
    for number in range(30):
        service.add("gaa50000", f"server-{number}")
    plain = caller.get("/api/state")
    packed = caller.get("/api/state", headers=PACKED)
    assert (packed.headers["Content-Encoding"], packed.headers["Vary"]) == ("gzip", "Accept-Encoding, Cookie")
    assert json.loads(gzip.decompress(packed.data)) == plain.json
    assert len(packed.data) < len(plain.data) / 5
    assert "Content-Encoding" not in plain.headers


def test_static_files_are_the_same_unpacked(caller: Caller) -> None:
    path = "/static/x/js/list.js"
    plain, packed = caller.get(path), caller.get(path, headers=PACKED)
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["Cache-Control"] == plain.headers["Cache-Control"]
    assert "ETag" not in packed.headers
    plain.close()
    packed.close()


def test_only_files_of_this_very_version_are_kept_for_ever(caller: Caller) -> None:
    """While a portal's hosts are upgraded one by one, a page of the one may ask the other, which has other files of that name."""
    page = caller.get("/").get_data(as_text=True)
    (version,) = set(re.findall(r"/static/([0-9a-f]+)/js/", page))
    for asked, kept in ((version, "private, max-age=31536000, immutable"), ("0" * len(version), "no-store")):
        answer = caller.get(f"/static/{asked}/js/list.js")
        assert answer.headers["Cache-Control"] == kept
        answer.close()


def test_the_page_with_its_token_is_not_packed(caller: Caller) -> None:
    answer = caller.get("/", headers=PACKED)
    assert "csrf-token" in answer.get_data(as_text=True)
    assert "Content-Encoding" not in answer.headers
