"""Whom a connection by TLS trusts where nobody says it: whom the operating system trusts, a site's own authority included.

The Python packages for HTTP come with a list of their own (certifi's) instead, which knows no site's authority.
"""

from pathlib import Path

from mlwf.settings import environment

SYSTEM_LISTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # RHEL, Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # what RHEL's older names lead to
    "/etc/ssl/cert.pem",  # Alpine
)
"""Where operating systems keep the certificate authorities that they trust. The box, which imports nothing of this, has the same list."""


def system_list() -> str | None:
    """The one of this machine. None: it has none where we look."""
    return next((path for path in SYSTEM_LISTS if Path(path).is_file()), None)


def trusted(ca_file: Path | None) -> str | None:
    """For `verify` of requests: that file; else None where the user's environment names one, which requests takes then; else this
    machine's list.
    """
    if ca_file is not None:
        return str(ca_file)
    named = any(environment().get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))
    return None if named else system_list()
