"""The caller's AWS settings, which may be of another day: what of them cannot be used is said, and is no fault of the tool."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from mlwf.transfer.store import Signer, StoreError

ROLE = """
[profile role]
role_arn = arn:aws:iam::1:role/x
source_profile = keys
region = x
[profile keys]
aws_access_key_id = a
aws_secret_access_key = b
[profile program]
credential_process = false
"""


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(ROLE)
    variables = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_MAX_ATTEMPTS": "1", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"AWS_PROFILE": "nope"}, r"The config profile \(nope\) could not be found"),
        ({"AWS_ACCESS_KEY_ID": "lone"}, "missing: AWS_SECRET_ACCESS_KEY"),
        ({"AWS_PROFILE": "program"}, "Error when retrieving credentials from custom-process"),
        ({"AWS_PROFILE": "role"}, "Could not connect to the endpoint URL"),
        ({}, "There are no AWS credentials"),
    ],
)
def test_settings_that_lead_nowhere(environ: Mapping[str, str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=said):
        Signer("x").headers("http://127.0.0.1:9/b", {})
