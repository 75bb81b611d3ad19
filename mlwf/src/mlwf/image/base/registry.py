"""The digest behind a tag, asked of a container registry (the OCI distribution API), so that a base is converted once for each content."""

import base64
import functools
import hashlib
import json
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.auth import HTTPBasicAuth

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.base.docker_reference import DOCKER_HUB, DockerReference, helper_cure, registry_cure, tls_cure
from mlwf.secret import Secret
from mlwf.transfer.session import plain_session
from mlwf.wire.system_error import system_error

HUB_ADDRESS = "registry-1.docker.io"
TIMEOUT = (10.0, 60.0)
# A parameter, its value quoted or not; else the name of a way in.
CHALLENGE = re.compile(r'([\w-]+) *= *(?:"([^"]*)"|([^ ,"]+))|([\w-]+)')
# As much as registries take.
MAX_MANIFEST = 4 << 20
MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "docker.distribution.manifest.list.v2",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.v2",
    )
)


def registry_digest(reference: DockerReference, environ: Mapping[str, str], *, http: bool = False) -> str:
    """The digest of what the tag names now. Raises MlwfError. The user's own digest is believed: the tool checks it."""
    if reference.digest:
        return reference.digest
    answer = _ask("HEAD", reference, reference.tag, environ, http=http)
    if not answer.ok:
        raise _refused(reference, answer, environ)
    digest = answer.headers.get("Docker-Content-Digest", "")
    if re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        return digest
    # A registry need not tell the digest: it is the hash of the manifest.
    manifest = registry_manifest(reference, reference.tag, environ, http=http)
    if not manifest:
        raise MlwfError(
            _what(reference), _("the registry sends no whole manifest"), _("Try again, or name the image with its digest (NAME@sha256:…).")
        )
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def registry_manifest(reference: DockerReference, named: str, environ: Mapping[str, str], *, http: bool = False) -> bytes:
    """The manifest `named` by a tag or digest; empty where it breaks off or is longer than one may be. Raises MlwfError."""
    with _ask("GET", reference, named, environ, http=http) as answer:
        if not answer.ok:
            raise _refused(reference, answer, environ)
        content = bytearray()
        try:
            for part in answer.iter_content(1 << 16):
                content += part
                if len(content) > MAX_MANIFEST:
                    return b""
        except requests.RequestException:
            return b""
    return bytes(content)


def _what(reference: DockerReference) -> str:
    return _("The base image {name} cannot be looked up").format(
        name=f"{reference.host}/{reference.name}" + (f":{reference.tag}" if reference.tag else f"@{reference.digest}")
    )


def _refused(reference: DockerReference, answer: requests.Response, environ: Mapping[str, str]) -> MlwfError:
    why, status = _("the registry answers {status}").format(status=answer.status_code), answer.status_code
    return MlwfError(_what(reference), why, login_cure(reference.host, environ) if status in {401, 403} else registry_cure(status))


def login_cure(host: str, environ: Mapping[str, str]) -> str:
    """What helps where the registry lets nobody in, or not with the login that is known."""
    helper = None if registry_login(host, environ) else _with_helper(host, environ)
    return helper_cure(helper) if helper else registry_cure(401)


def _with_helper(host: str, environ: Mapping[str, str]) -> Path | None:
    """The file that says that the login for that registry is with another program."""
    for file in _login_files(environ):
        try:
            told = json.loads(file.read_bytes())
            if told.get("credsStore") or any(name in told.get("credHelpers", {}) for name in _names(host)):
                return file
        except (OSError, ValueError, AttributeError, TypeError):
            continue
    return None


def _names(host: str) -> tuple[str, ...]:
    """What the files of logins call a registry."""
    return (host, "https://index.docker.io/v1/") if host == DOCKER_HUB else (host, f"https://{host}")


def _ask(method: str, reference: DockerReference, named: str, environ: Mapping[str, str], *, http: bool) -> requests.Response:
    """The registry's answer about the manifest `named`, a tag or a digest. Raises MlwfError."""
    host = HUB_ADDRESS if reference.host == DOCKER_HUB else reference.host
    url = f"{'http' if http else 'https'}://{host}/v2/{reference.name}/manifests/{named}"
    session = plain_session(url, environ, follows=True)  # else ~/.netrc would go before the registry's token, and unasked
    session.headers["Accept"] = MANIFESTS
    try:
        answer = session.request(method, url, timeout=TIMEOUT, allow_redirects=True, stream=method == "GET")
        if answer.status_code == 401:
            answer.close()
            answer = _with_credentials(session, url, answer, reference, environ)
    except (requests.RequestException, ValueError) as error:  # the latter for an address, which it leads to, that cannot be read
        why = system_error(error)
        raise MlwfError(
            _what(reference),
            _("the registry does not answer ({reason})").format(reason=(why.strerror if why else None) or type(error).__name__),
            tls_cure(trusted=not isinstance(why, ssl.SSLCertVerificationError)) if isinstance(why, ssl.SSLError) else registry_cure(None),
        ) from error
    return answer


def _with_credentials(
    session: requests.Session, url: str, answer: requests.Response, reference: DockerReference, environ: Mapping[str, str]
) -> requests.Response:
    """Asks again as the registry's 401 says: with the user's password, or with a token from where it points to."""
    method = str(answer.request.method)
    again = functools.partial(session.request, method, url, timeout=TIMEOUT, allow_redirects=True, stream=method == "GET")
    known = registry_login(reference.host, environ)
    # As bytes: requests would encode as latin-1.
    login = HTTPBasicAuth(known[0].encode(), known[1].reveal().encode()) if known else None
    asked = _challenges(answer.headers.get("WWW-Authenticate", ""))
    told = asked.get("bearer", {})
    realm = told.get("realm", "")
    if not realm.startswith(("https://", "http://") if url.startswith("http://") else "https://"):
        return again(auth=login) if "basic" in asked and login else answer
    query = {"scope": f"repository:{reference.name}:pull"} | {name: told[name] for name in ("service",) if name in told}
    token = plain_session(realm, environ, follows=True).get(realm, params=query, timeout=TIMEOUT, auth=login)
    if not token.ok:
        return token
    return again(headers={"Authorization": f"Bearer {_bearer(token, reference)}"})


def _challenges(header: str) -> dict[str, dict[str, str]]:
    """The ways in that a 401 offers, in small letters, each with its parameters. There may be several, on one line or on one each: before
    a registry, a site's single sign-on offers its own (Negotiate), too.
    """
    found: dict[str, dict[str, str]] = {}
    told: dict[str, str] = {}
    for name, quoted, plain, scheme in CHALLENGE.findall(header):
        if scheme:
            told = found.setdefault(scheme.lower(), {})
        else:
            told[name.lower()] = quoted or plain
    return found


def _bearer(answer: requests.Response, reference: DockerReference) -> str:
    """The token in the answer of the registry's sign-in service. Raises MlwfError."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    bearer = (body.get("token") or body.get("access_token")) if isinstance(body, dict) else None
    if not isinstance(bearer, str) or not re.fullmatch(r"[!-~]+", bearer):
        raise MlwfError(
            _what(reference),
            _("{host}, where the registry signs users in, sends no token").format(host=urlsplit(answer.url).netloc),
            registry_cure(500),
        )
    return bearer


def registry_login(host: str, environ: Mapping[str, str]) -> tuple[str, Secret] | None:
    """User and password for the registry: the variables of the container tools, then the files that a login writes."""
    for prefix in ("APPTAINER", "SINGULARITY"):
        user, password = environ.get(f"{prefix}_DOCKER_USERNAME"), environ.get(f"{prefix}_DOCKER_PASSWORD")
        if user and password:
            return user, Secret(password)
    names = _names(host)
    for file in _login_files(environ):
        try:
            auths = json.loads(file.read_bytes()).get("auths", {})
            entry = next(auths[name]["auth"] for name in names if auths.get(name, {}).get("auth"))
            user, colon, password = base64.b64decode(entry).decode().partition(":")
        except (OSError, ValueError, AttributeError, TypeError, StopIteration):
            continue
        if colon and password:  # without one, a token stands beside it that only Docker can exchange: what is open to all is open still
            return user, Secret(password)
    return None


def _login_files(environ: Mapping[str, str]) -> list[Path]:
    """Where the container tools, Docker and Podman keep what a login wrote."""
    home, run = Path(environ.get("HOME") or "/"), environ.get("XDG_RUNTIME_DIR")
    docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker", "config.json")
    podman = environ.get("REGISTRY_AUTH_FILE") or (run and f"{run}/containers/auth.json")
    tools = [home / f".{name}" / "docker-config.json" for name in ("apptainer", "singularity")]
    return [*tools, docker, *([Path(podman)] if podman else [])]
