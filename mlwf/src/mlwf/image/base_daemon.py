"""A base image that the Docker daemon of this machine holds: what its name means now, and the content by that id.

Container tools ask a daemon by name, which may mean something else a moment later: they get the image with the id as an archive instead.
"""

from collections.abc import Mapping
from pathlib import Path

import requests

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.base_source import DIGEST
from mlwf.transport import UnixAdapter

# A daemon collects all layers of a large image before it sends the first byte.
TIMEOUT = (30.0, 600.0)


def find_image(name: str, environ: Mapping[str, str]) -> tuple[str, int]:
    """The image's id, and its bytes when it is unpacked (0 where the daemon does not tell). Raises MlwfError."""
    answer = _ask(name, f"{name}/json", environ)
    try:
        told = answer.json()
        digest, size = str(told["Id"]), int(told.get("Size") or 0)
    except (requests.RequestException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _silent(name, error) from error
    if not DIGEST.fullmatch(digest):
        raise _unreadable(name, _("the daemon answers {status}").format(status=answer.status_code))
    return digest, max(size, 0)


def save_image(name: str, digest: str, file: Path, environ: Mapping[str, str]) -> None:
    """Writes the image with this id into a new file, as `docker save` does. `name`: for the message. Raises MlwfError or OSError."""
    try:
        with _ask(name, f"{digest}/get", environ) as answer, file.open("xb") as archive:
            for part in answer.iter_content(1 << 20):
                archive.write(part)
    except requests.RequestException as error:
        raise _silent(name, error) from error


def _ask(name: str, path: str, environ: Mapping[str, str]) -> requests.Response:
    """The daemon's good answer, whose body is still to be read. Raises MlwfError."""
    address = environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not address.startswith("unix://"):
        raise _unreadable(name, _("{address} is no Unix socket").format(address=address))
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", UnixAdapter(Path(address.removeprefix("unix://"))))
    try:
        answer = session.get(f"http://localhost/images/{path}", timeout=TIMEOUT, stream=True)
    except requests.RequestException as error:
        raise _silent(name, error) from error
    if not answer.ok:
        answer.close()
        raise _unreadable(name, _("the daemon answers {status}").format(status=answer.status_code))
    return answer


def _silent(name: str, error: Exception) -> MlwfError:
    return _unreadable(name, _("the Docker daemon does not answer ({kind})").format(kind=type(error).__name__))


def _unreadable(name: str, why: str) -> MlwfError:
    return MlwfError(
        _("The image {name} cannot be read from the Docker daemon").format(name=name),
        why,
        _("Look with 'docker images', or save it: 'docker save NAME -o FILE.tar' and docker-archive:FILE.tar."),
    )
