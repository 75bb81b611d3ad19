"""Whom the client trusts where no `ca_file` is named."""

from pathlib import Path

import pytest
from mlwf.client import Client
from mlwf.errors import MlwfError
from mlwf.wire import trust

from tests.support.tls import Authority, in_front_of


def refused(port: int) -> str:
    """What is said of a service behind that port, where nginx has nobody to ask."""
    with Client(f"https://localhost:{port}") as client, pytest.raises(MlwfError) as caught:
        client.health()
    return str(caught.value)


def test_a_service_whose_authority_the_operating_system_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    authority = Authority(tmp_path / "site")
    with in_front_of("http://127.0.0.1:1", authority) as port:
        assert "certificate" in refused(port)
        monkeypatch.setattr(trust, "SYSTEM_LISTS", (str(tmp_path / "of-another-system"), str(authority.ca_file)))
        assert "502" in refused(port)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
        assert "certificate" in refused(port), "what the user's own environment names counts"
