"""The tracking server as this node sees it."""

import contextlib
import datetime as dt
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_netrc_auth

from mlwf.doctor.findings import Check, Failed, Noted, Once
from mlwf.i18n import _
from mlwf.transfer.session import asked_proxy, file_before_token, not_let_in, tracking_session
from mlwf.wire.system_error import address_fault, system_error

SKEW_NOTED, SKEW_FAILED = 30.0, 300.0
SECONDS = 4.0
VERSION = re.compile(r"[0-9]+\.[0-9]+[0-9A-Za-z.+-]{0,40}")


class Unreached(Failed):
    """There was no answer at all."""


class Server:
    """Asked at most once for each thing, whichever checks need it."""

    def __init__(self, url: str, environ: Mapping[str, str], python_mlflow: Callable[[], str]) -> None:
        self.url = url
        self._environ = environ
        self._python_mlflow = python_mlflow
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._secure = parts.scheme == "https"
        self._health = Once(lambda: self._get("health"))
        self._info = Once(self._ask_info)

    def checks(self) -> list[Check]:
        return [
            Check("name", _("Name resolution"), self._name),
            Check("proxy", _("Proxy"), self._proxy),
            Check("connection", _("Connection"), self._connection),
            *([Check("tls", _("TLS"), self._tls)] if self._secure else []),
            Check("address", _("Address and prefix"), self._address),
            Check("login", _("User name and password"), self.if_reached(self._login)),
            Check("version", _("Versions"), self.if_reached(self._version)),
            Check("clock", _("Clock"), self.if_reached(self._clock)),
        ]

    def if_reached(self, check: Callable[[], str]) -> Callable[[], str]:
        """A server that is not reached is told by the check of its address, and not again by each that would ask it more."""

        def run() -> str:
            try:
                return check()
            except Unreached:
                try:
                    self._health()
                except Unreached as error:
                    raise Noted(_("not checked: the server cannot be reached")) from error
                raise

        return run

    @property
    def info(self) -> Mapping[str, Any]:
        """What the server tells its users of itself. Raises Failed or Noted."""
        return self._info()

    def _ask_info(self) -> Mapping[str, Any]:
        answer = self._get("-/info")
        if answer.status_code in {401, 403, 429}:
            what, reason = _("the server does not accept your user name and password"), answer.headers.get("X-Aihub-Why", "")
            if reason:
                raise Failed(what, *not_let_in(reason))
            cure = _("Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN): mlwf server env GROUP/ENV.")
            raise Failed(what, _body_message(answer), cure)
        document = _object(answer) if answer.status_code == requests.codes.ok else None
        if document is None:
            raise Noted(_("the server is not one of this service's, and does not report its storage"))
        return document

    def _get(self, path: str) -> requests.Response:
        try:
            return tracking_session(self.url, self._environ).get(f"{self.url}/{path}", timeout=SECONDS, allow_redirects=False)
        except requests.RequestException as error:
            cause = system_error(error)
            if isinstance(cause, ssl.SSLError):
                raise _tls_fault(cause) from error
            why = cause.strerror or str(cause) if cause else type(error).__name__
            if isinstance(error, ValueError):  # of requests: an address, mostly a proxy's, that is none, or one that it cannot ask
                why = address_fault(error)
            raise Unreached(
                _("the server does not answer"), why, _("Check the address; is the server started? mlwf server show GROUP/ENV.")
            ) from error

    def _name(self) -> str:
        try:
            found = socket.getaddrinfo(self.host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            why = error.strerror or str(error)
            raise Failed(_("{host} has no address").format(host=self.host), why, _("Check the host name in the URL.")) from error
        return f"{self.host}: {', '.join(dict.fromkeys(str(each[4][0]) for each in found))}"

    def _proxy(self) -> str:
        proxy = asked_proxy(tracking_session(self.url, self._environ), self.url)
        if not proxy:
            return _("none for this address")
        raise Noted(_("requests go through {proxy}; for a server inside, add {host} to no_proxy").format(proxy=proxy, host=self.host))

    def _connection(self) -> str:
        try:
            with socket.create_connection((self.host, self._port), timeout=SECONDS):
                return _("port {port} answers").format(port=self._port)
        except OSError as error:
            raise Failed(
                _("port {port} of {host} cannot be reached").format(port=self._port, host=self.host),
                error.strerror or str(error),
                _("Is the server stopped (mlwf server list), or is there a firewall between this node and it?"),
            ) from error

    def _tls(self) -> str:
        context = _context(tracking_session(self.url, self._environ).verify)
        try:
            with (
                socket.create_connection((self.host, self._port), timeout=SECONDS) as plain,
                context.wrap_socket(plain, server_hostname=self.host) as secure,
            ):
                version, until = secure.version(), str((secure.getpeercert() or {}).get("notAfter", ""))
        except OSError as error:
            raise _tls_fault(error) from error
        if context.verify_mode == ssl.CERT_NONE:
            raise Noted(_("{version}; because of MLFLOW_TRACKING_INSECURE_TLS nobody checks the certificate").format(version=version))
        return _("{version}, certificate until {until}").format(version=version, until=until)

    def _address(self) -> str:
        answer = self._health()
        if answer.status_code == requests.codes.ok and answer.text.strip() == "OK":
            return _("{url}/health answers").format(url=self.url)
        cure = _("Give the URL as Service List shows it, such as http://HOST:PORT/mlflow/.")
        raise Failed(_("there is no MLflow at this address"), f"HTTP {answer.status_code}", cure)

    def _login(self) -> str:
        principal = str(self.info.get("principal", "?"))
        words = _("known to the server as {principal}").format(principal=principal)
        netrc = get_netrc_auth(self.url)
        if netrc and principal != f"basic:{netrc[0]}":
            raise Noted(words + _("; MLflow itself sends what ~/.netrc has for {host} instead").format(host=self.host))
        if principal.startswith("token:"):
            path = file_before_token(self._environ)
            if path:
                raise Noted(words + _("; MLflow itself sends the user and password in {path} instead of the token").format(path=path))
        return words

    def _version(self) -> str:
        server = self._mlflow_version()
        client = self._python_mlflow()
        if not client:
            raise Noted(_("server {server}; this Python has no mlflow").format(server=server))
        words = _("server {server}, client {client}").format(server=server, client=client)
        if client.split(".")[0] != server.split(".", maxsplit=1)[0]:
            raise Noted(words + _("; the major versions differ: the server may lack new functions of the client"))
        return words

    def _mlflow_version(self) -> str:
        """As one of ours tells, else as any MLflow does. Raises Noted where neither is said."""
        with contextlib.suppress(Noted):
            if self.info.get("mlflow_version"):
                return str(self.info["mlflow_version"])
        answer = self._get("version")
        version = answer.text.strip()
        if answer.status_code != requests.codes.ok or not VERSION.fullmatch(version):
            raise Noted(_("the server does not report its version"))
        return version

    def _clock(self) -> str:
        try:
            there = parsedate_to_datetime(self._health().headers.get("Date", ""))
        except ValueError as error:
            raise Noted(_("the server does not report its time")) from error
        skew = abs((dt.datetime.now(dt.UTC) - there).total_seconds())
        words = _("{seconds:.0f} s apart from the server").format(seconds=skew)
        if skew > SKEW_FAILED:
            raise Failed(_("this node's clock is wrong"), words, _("Ask the admins to set it: object stores refuse your requests."))
        if skew > SKEW_NOTED:
            raise Noted(words)
        return words


def installed_mlflow() -> str:
    """The version of mlflow beside this tool; empty where there is none."""
    for name in ("mlflow", "mlflow-skinny"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _object(answer: requests.Response) -> dict[str, Any] | None:
    """The JSON object that it is; None for what is none, such as a portal's page."""
    try:
        document = answer.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _body_message(answer: requests.Response) -> str:
    document = _object(answer)
    return f"HTTP {answer.status_code}" if document is None else str(document.get("message") or "")


def _context(trusted: bool | str | None) -> ssl.SSLContext:
    """Who vouches for certificates, as for requests and so for MLflow: whom the node itself trusts has no say. Raises Failed."""
    bundle = Path(trusted if isinstance(trusted, str) else DEFAULT_CA_BUNDLE_PATH)
    try:
        context = ssl.create_default_context(cafile=None if bundle.is_dir() else bundle, capath=bundle if bundle.is_dir() else None)
    except OSError as error:
        words = _("the CA bundle {path} cannot be used").format(path=bundle)
        cure = _("Correct MLFLOW_TRACKING_SERVER_CERT_PATH, or REQUESTS_CA_BUNDLE where that is not set.")
        raise Failed(words, error.strerror or str(error), cure) from error
    if trusted is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _tls_fault(error: OSError) -> Unreached:
    if isinstance(error, ssl.SSLCertVerificationError):
        cure = _("Set MLFLOW_TRACKING_SERVER_CERT_PATH to the site's CA, and check the host name.")
        return Unreached(_("the certificate is not trusted"), error.verify_message, cure)
    why = error.strerror or str(error)
    return Unreached(_("no TLS connection can be made"), why, _("Is it an http:// address? Look at Service List."))
