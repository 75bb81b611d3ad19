"""Addresses that nobody can read are wrong use, and no fault of the tool."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlwf.address import as_browsers_write, origin_of, split_url, without_keys
from mlwf.errors import WrongUseError
from mlwf.image.model.progress import Silence
from mlwf.image.model.requirements import Policy, RefusedRequirementError, check_requirements
from mlwf.image.model.sources import fetch_files
from mlwf.image.model.web import WebSource
from mlwf.transfer.session import base_url
from mlwf.transfer.store import StoreError, StoreSource
from mlwf.wire.transport import open_session

from tests.mlwf.exporting import arguments, nothing_left, run

UNREADABLE = ["http://HOST:PORT/mlflow/", "http://[::1/mlflow", "https://h:99999/x", "https://[x]:1/"]


@pytest.mark.parametrize("url", UNREADABLE)
def test_unreadable(url: str, mlwf: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (split_url(url).scheme, split_url(url).hostname) == ("", None)
    with pytest.raises(WrongUseError, match="such as http://HOST:PORT/mlflow/"):
        base_url(url)
    with pytest.raises(WrongUseError, match="not an address of the service"):
        open_session(url)
    with pytest.raises(StoreError, match="not an http or https URL"):
        StoreSource(endpoint_url=url, region=None, bucket="b", prefix="m", environ={})
    with pytest.raises(WrongUseError, match="is not a web address"):
        WebSource(url, {}, checked=False)
    with pytest.raises(WrongUseError):
        fetch_files(f"s3{url[url.index(':') :]}", tmp_path / "model", environ={}, progress=Silence())
    with pytest.raises(RefusedRequirementError, match="it is not a web address"):
        check_requirements(tmp_path, [f"--extra-index-url {url}"], Policy(indexes=True))
    for command in (["doctor", url], ["verify", url]):
        assert mlwf(*command) == 2
        assert "fault of the tool" not in capsys.readouterr().err


def test_an_export_from_an_unreadable_address(tmp_path: Path) -> None:
    done = run(tmp_path / "w", {}, *arguments(UNREADABLE[1], "wine"))
    assert (done.returncode, "is not an http or https URL" in done.stderr) == (2, True)
    assert nothing_left(tmp_path / "w")


def test_what_may_be_a_key_is_not_shown() -> None:
    for text in ("https://u:p@h/x?key=k#f", "https://u:p@h:PORT/x?key=k", "https://u:p@[::1/x?key=k"):
        assert without_keys(text) == "https://" + text.partition("@")[2].partition("?")[0]


@pytest.mark.parametrize(
    ("written", "as_browsers", "origin"),
    [
        ("HTTPS://Portal.Example.org:443/Pun/?a=B", "https://portal.example.org/Pun/?a=B", "https://portal.example.org"),
        ("https://portal.example.org:0443", "https://portal.example.org", "https://portal.example.org"),
        ("http://h:443/x", "http://h:443/x", "http://h:443"),
        ("http://h:", "http://h", "http://h"),
        ("http://[FE80::1]:80/", "http://[fe80::1]/", "http://[fe80::1]"),
    ],
)
def test_as_browsers_name_it(written: str, as_browsers: str, origin: str) -> None:
    assert (as_browsers_write(written), origin_of(written)) == (as_browsers, origin)
    assert as_browsers_write(as_browsers) == as_browsers
