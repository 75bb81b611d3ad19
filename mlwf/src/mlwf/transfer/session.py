"""A requests session set up from what MLflow's own client reads: the MLFLOW_TRACKING_* variables and ~/.mlflow/credentials."""

import configparser
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_environ_proxies, select_proxy
from urllib3.connection import HTTPConnection

from mlwf.address import split_url
from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _
from mlwf.looks import look
from mlwf.secret import one_token
from mlwf.wire.token_auth import TokenAuth
from mlwf.wire.transport import OneAnswer

POOL = 32
SWITCH = {"": False, "0": False, "false": False, "1": True, "true": True}
"""As MLflow reads its switches, but that an empty one is one that is not set."""
_WATCHED = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 8),
]


class _NoAuth(AuthBase):
    """Sends what the request has, and keeps requests from looking into ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Watched(HTTPAdapter):
    """Its connections end within minutes where the other host is gone: a server may be silent for an hour before it answers, a host that
    was switched off for ever.
    """

    def init_poolmanager(self, *sizes: Any, **options: Any) -> None:
        super().init_poolmanager(*sizes, **options, socket_options=_WATCHED)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, socket_options=_WATCHED)


def base_url(url: str) -> str:
    """The server's URL without a slash at the end. Raises WrongUseError for anything that is not http(s), or that carries a password."""
    parts = split_url(url)
    cure = _("Give the URL that Service List shows, such as http://HOST:PORT/mlflow/.")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise WrongUseError(_("The registry's URL is not an http or https URL"), cure=cure)
    if parts.username or parts.password:
        raise WrongUseError(
            _("The registry's URL holds a user name or password, which others could read"),
            cure=_("Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead."),
        )
    if parts.query or parts.fragment:
        raise WrongUseError(_("The registry's URL has a query or a fragment"), cure=cure)
    return url.rstrip("/")


def tracking_session(url: str, environ: Mapping[str, str]) -> requests.Session:
    """A session for the tracking server at `url`. Raises MlwfError when a setting cannot be used."""
    session = plain_session(url, environ)
    session.auth = _auth(environ) or _NoAuth()
    bundle = environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    if _switched_on(environ, "MLFLOW_TRACKING_INSECURE_TLS"):
        if bundle:
            raise WrongUseError(
                _("MLFLOW_TRACKING_INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH contradict each other"), cure=_("Unset one of them.")
            )
        session.verify = False
    elif bundle:
        session.verify = existing(bundle, "MLFLOW_TRACKING_SERVER_CERT_PATH")
    return session


def plain_session(url: str, environ: Mapping[str, str], trust: bool | str | None = None, *, follows: bool = False) -> requests.Session:
    """A session without credentials; proxies and CA bundle are looked up once, not for each of many small requests.

    `trust`: who vouches for certificates, where it is not who does for others (None). `follows`: it may go where an answer sends it.
    """
    session = requests.Session() if follows else OneAnswer()
    session.proxies = get_environ_proxies(url)
    session.trust_env = False
    session.auth = _NoAuth()
    named = next((name for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if environ.get(name)), "")
    if trust is not None:
        session.verify = trust
    elif named:
        session.verify = existing(environ[named], named)
    session.headers.update({"User-Agent": "mlwf", "Accept-Encoding": "identity"})
    for prefix in ("http://", "https://"):
        session.mount(prefix, _Watched(pool_connections=4, pool_maxsize=POOL))
    return session


def environment_trust(environ: Mapping[str, str]) -> bool | str | None:
    """Who vouches for the certificate of an object store, or of an address that may be one's, as the environment says: nobody (False), a
    file, or who does for others (None). Raises MlwfError.
    """
    if _switched_on(environ, "MLFLOW_S3_IGNORE_TLS"):
        return False
    bundle = environ.get("AWS_CA_BUNDLE")
    return existing(bundle, "AWS_CA_BUNDLE") if bundle else None


def _switched_on(environ: Mapping[str, str], name: str) -> bool:
    """Whether one of MLflow's switches is on. Raises WrongUseError for what MLflow does not take."""
    found = SWITCH.get(environ.get(name, "").lower())
    if found is None:
        raise WrongUseError(_("{name} cannot be used").format(name=name), cure=_("Set it to true or false."))
    return found


def existing(path: str, variable: str) -> str:
    """The path that a setting names. Raises MlwfError where nothing is there."""
    there, why = look(Path(path).exists)
    if not there:
        raise MlwfError(_("{variable} names {path}, which does not exist").format(variable=variable, path=path), why, _("Correct it."))
    return path


def file_before_token(environ: Mapping[str, str]) -> Path | None:
    """The credentials file whose user and password MLflow's own client sends rather than a token, and cannot be told not to; None where
    it holds no such pair. Raises MlwfError for a file that cannot be read.
    """
    path = _credentials_file(environ)
    return path if all(_stored(path)) else None


def asked_proxy(session: requests.Session, url: str) -> str:
    """The proxy by way of which the session asks, without a password; empty where there is none."""
    return re.sub("^([^:/]*:?//)?.*@", r"\1…@", select_proxy(url, session.proxies) or "")


def proxy_hint(session: requests.Session, url: str) -> str:
    """What is to be known of a failure where a proxy was asked, which may be what fails; empty where there is none."""
    proxy = asked_proxy(session, url)
    words = _("It was asked through the proxy {proxy}: for a server inside, add {host} to no_proxy.")
    return words.format(proxy=proxy, host=split_url(url).hostname) if proxy else ""


def not_let_in(reason: str, session: requests.Session | None = None) -> tuple[str, str]:
    """Why, and the cure, of a 401. `reason`: our servers' own word for it; `session`: what was asked with."""
    if reason == "closed":
        return (
            _("no user is registered for it yet, so it lets nobody in"),
            _("Press Auth Info Registration in the console, or run: mlwf server auth GROUP/ENV."),
        )
    if reason == "expired":
        return _("the token in MLFLOW_TRACKING_TOKEN has expired"), _("Make a new one with: mlwf token create GROUP/ENV.")
    if session and isinstance(session.auth, TokenAuth):
        return (
            _("it does not know the token in MLFLOW_TRACKING_TOKEN"),
            _("Make one for it with: mlwf token create GROUP/ENV; or unset it, and log in with user and password."),
        )
    return (
        _("the user name or the password is missing or wrong"),
        _("Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a user registered by Auth Info Registration."),
    )


def _auth(environ: Mapping[str, str]) -> AuthBase | None:
    """What the environment says, as a whole, else what the file adds to it. MLflow's own client lets the file go before a token."""
    name, password, text = (environ.get(f"MLFLOW_TRACKING_{each}", "") for each in ("USERNAME", "PASSWORD", "TOKEN"))
    if text.strip() and not (name and password):
        token = one_token(text)
        if token is None:
            what = _("{variable} cannot be used").format(variable="MLFLOW_TRACKING_TOKEN")
            raise WrongUseError(what, _("it does not hold exactly one token"), _("Correct or unset it."))
        return TokenAuth(token)
    if not (name and password):
        stored_name, stored_password = _stored(_credentials_file(environ))
        name, password = name or stored_name, password or stored_password
    # As bytes: requests would encode as latin-1, servers expect UTF-8. What is none in the environment goes as it stands there.
    return HTTPBasicAuth(*(each.encode("utf-8", "surrogateescape") for each in (name, password))) if name and password else None


def _credentials_file(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or "~").expanduser() / ".mlflow" / "credentials"


def _stored(path: Path) -> tuple[str, str]:
    parser = configparser.ConfigParser()
    try:
        parser.read(path, "utf-8")
    except (configparser.Error, UnicodeDecodeError):
        # The parser's own words quote the line, which may be a password.
        raise MlwfError(_("{where} cannot be read").format(where=path), cure=_("Correct the file, or remove it.")) from None
    except OSError as error:
        raise MlwfError(_("{where} cannot be read").format(where=path), error.strerror or "", _("Correct its permissions.")) from error
    return _value(parser, "mlflow_tracking_username"), _value(parser, "mlflow_tracking_password")


def _value(parser: configparser.ConfigParser, name: str) -> str:
    """As MLflow reads it, to which %% is one %; a single one, over which MLflow stumbles, is one, too."""
    try:
        return parser.get("mlflow", name, fallback="")
    except configparser.InterpolationError:
        return parser.get("mlflow", name, raw=True)
