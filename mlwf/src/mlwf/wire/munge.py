"""Proving who we are to a service on another host, by MUNGE."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.wire.munge_payload import SCHEME, payload
from mlwf.wire.service_errors import ServiceUnavailable

SECONDS = 5.0


class MungeAuth(AuthBase):
    """Signs each request anew: a credential is good for one request, and for the service's account `uid` alone.

    `service`: its address. `socket`: munged's, `None` for the default. The credential goes through pipes, never through arguments.
    """

    def __init__(self, service: str, *, uid: str, environ: Mapping[str, str], socket: Path | None = None) -> None:
        self._service = service
        self._argv = ["munge", f"--restrict-uid={uid}", *([f"--socket={socket}"] if socket else [])]
        self._environ = {"PATH": environ.get("PATH") or os.defpath, "LC_ALL": "C"}

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        text = payload(
            method=str(request.method),
            service=self._service,
            target=_target(str(request.url)),
            body=body.encode() if isinstance(body, str) else body,
        )
        request.headers["Authorization"] = f"{SCHEME} {self._credential(text)}"
        return request

    def _credential(self, text: str) -> str:
        what = _("MUNGE cannot prove who you are")
        try:
            done = subprocess.run(
                self._argv, input=text, env=self._environ, capture_output=True, text=True, errors="replace", check=False, timeout=SECONDS
            )
        except FileNotFoundError:
            raise MlwfError(
                what,
                _("the program munge is not installed on this host"),
                _("Use a host of the cluster, or ask the admins for an API token."),
            ) from None
        except subprocess.TimeoutExpired:
            raise ServiceUnavailable(what, _("munge did not answer"), _("Tell the admins of this host to look at munged.")) from None
        if done.returncode:
            raise ServiceUnavailable(
                what, _last_line(done.stderr), _("Tell the admins of this host: munged must run, and munge_uid must be a user.")
            )
        return done.stdout.strip()


def _target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"


def _last_line(text: str) -> str:
    lines = [line.removeprefix("munge: Error: ").strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "munge"
