"""MUNGE by its own program ``unmunge``: who made a credential on any host that has the site's key.

The program rather than a library: the one on PyPI (pymunge) has had no release since 2018, and ``unmunge`` is wherever munged is, is
kept up with it, and cannot take a worker down. It costs about 3 ms.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backend.errors import ServiceError
from backend.i18n import Told

_SECONDS: Final = 4.0
_KEYS: Final = ("ENCODE_TIME", "DECODE_TIME", "UID", "UID_RESTRICTION")
_OK: Final = 0
_EXPIRED, _REWOUND, _REPLAYED, _UNAUTHORIZED = 15, 16, 17, 18
_OF_THE_CREDENTIAL: Final = range(8, 15)
"""munge.h's errors that blame the credential: its form, cipher, key."""


@dataclass(frozen=True, kw_only=True)
class Credential:
    """What a good credential says: who made it, and for what."""

    uid: int
    payload: str


class Unmunge:
    """Decodes as the account that this process runs as; credentials must be for that uid alone. ``socket``: None for munged's default."""

    def __init__(self, socket: Path | None) -> None:
        self._where = () if socket is None else ("--socket", str(socket))

    def decode(self, text: str) -> Credential:
        """Errors: ``credential_refused``, ``credential_clock``, ``credential_replayed``, ``credential_for_other``, ``munge_failed``."""
        done = self._run(("unmunge", "--numeric", "--keys", ",".join(_KEYS)), text)
        values, payload = _parsed(done.stdout)
        if done.returncode in {_EXPIRED, _REWOUND}:
            raise ServiceError("credential_clock", seconds=abs(int(values["DECODE_TIME"]) - int(values["ENCODE_TIME"])))
        if done.returncode == _REPLAYED:
            raise ServiceError("credential_replayed")
        if done.returncode == _UNAUTHORIZED:
            raise ServiceError("credential_for_other", uid=os.geteuid())
        if done.returncode in _OF_THE_CREDENTIAL:
            raise ServiceError("credential_refused")
        if done.returncode != _OK:
            raise ServiceError("munge_failed", why=_last_line(done.stderr) or _ended("unmunge", done.returncode))
        if values.get("UID_RESTRICTION") != str(os.geteuid()):
            raise ServiceError("credential_for_other", uid=os.geteuid())
        return Credential(uid=int(values["UID"]), payload=payload)

    def try_it(self) -> None:
        """Make a credential for ourselves and decode it. Errors: as ``decode``."""
        made = self._run(("munge", f"--restrict-uid={os.geteuid()}"), "")
        if made.returncode != _OK:
            raise ServiceError("munge_failed", why=_last_line(made.stderr) or _ended("munge", made.returncode))
        self.decode(made.stdout.strip())

    def _run(self, argv: tuple[str, ...], text: str) -> subprocess.CompletedProcess[str]:
        argv = (*argv, *self._where)
        try:
            return subprocess.run(argv, input=text, capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS)
        except FileNotFoundError:
            raise ServiceError("munge_failed", why="its programs are not installed") from None
        except (subprocess.TimeoutExpired, OSError) as error:
            raise ServiceError(
                "munge_failed", why=Told("{program} did not end ({kind})", program=argv[0], kind=type(error).__name__)
            ) from None


def _parsed(output: str) -> tuple[dict[str, str], str]:
    """``NAME: value`` lines, an empty line, the payload."""
    head, _, payload = output.partition("\n\n")
    pairs = (line.partition(":") for line in head.splitlines())
    return {name.strip(): value.strip() for name, _colon, value in pairs}, payload


def _ended(program: str, status: int) -> str:
    return Told("{program} ended with status {status}", program=program, status=status)


def _last_line(text: str) -> str:
    lines = [re.sub("^(un)?munge: Error: ", "", line).strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
