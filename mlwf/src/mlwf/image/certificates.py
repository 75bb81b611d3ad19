"""Whose certificates other programs trust: those that requests trusts for this command, since one CA of a site is enough to name once."""

import os
from collections.abc import Mapping
from pathlib import Path

# Who has set one of these has said it already.
SAID = ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS")


def trusted(environ: Mapping[str, str]) -> dict[str, str]:
    """The variable that tells uv, Apptainer and Singularity what REQUESTS_CA_BUNDLE tells this command; empty where there is none."""
    named = environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    if not named or any(environ.get(name) for name in SAID):
        return {}
    return {"SSL_CERT_DIR" if Path(named).is_dir() else "SSL_CERT_FILE": os.path.abspath(named)}  # noqa: PTH100  # uv runs elsewhere
