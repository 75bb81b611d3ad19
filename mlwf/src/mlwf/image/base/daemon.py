"""A base image that the Docker daemon of this machine holds: what its name means now."""

from collections.abc import Mapping
from pathlib import Path

import requests

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.base.docker_reference import DIGEST
from mlwf.wire.system_error import system_error
from mlwf.wire.transport import UnixAdapter

TIMEOUT = 30.0


def find_image(name: str, environ: Mapping[str, str]) -> tuple[str, int]:
    """The image's id, and its bytes when it is unpacked (0 where the daemon does not tell). Raises MlwfError."""
    answer = _ask(name, environ)
    try:
        told = answer.json()
        digest, size = str(told["Id"]), int(told.get("Size") or 0)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _silent(name, error) from error
    if not DIGEST.fullmatch(digest):
        raise _unreadable(name, _("the daemon answers {status}").format(status=answer.status_code))
    return digest, max(size, 0)


def _ask(name: str, environ: Mapping[str, str]) -> requests.Response:
    """The daemon's good answer. Raises MlwfError."""
    address = environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not address.startswith("unix://"):
        raise _unreadable(name, _("{address} is not a Unix socket").format(address=address))
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", UnixAdapter(Path(address.removeprefix("unix://"))))
    try:
        answer = session.get(f"http://localhost/images/{name}/json", timeout=TIMEOUT)
    except requests.RequestException as error:
        raise _silent(name, error) from error
    if not answer.ok:
        raise _unreadable(name, _("the daemon answers {status}").format(status=answer.status_code))
    return answer


def _silent(name: str, error: Exception) -> MlwfError:
    why = system_error(error)
    reason = (why.strerror if why else None) or type(error).__name__
    return _unreadable(name, _("the Docker daemon does not answer ({kind})").format(kind=reason))


def _unreadable(name: str, why: str) -> MlwfError:
    return MlwfError(
        _("The image {name} cannot be read from the Docker daemon").format(name=name),
        why,
        _("Look with 'docker images', or save it: 'docker save NAME -o FILE.tar' and docker-archive:FILE.tar."),
    )
