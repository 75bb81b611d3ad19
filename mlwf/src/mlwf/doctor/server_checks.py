"""The tracking server as this node sees it."""

import datetime as dt
import functools
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

import requests

from mlwf.doctor.findings import Check, Failed, Noted
from mlwf.i18n import _
from mlwf.transfer.session import file_before_token, tracking_session
from mlwf.wire.system_error import system_error

SKEW_NOTED, SKEW_FAILED = 30.0, 300.0
SECONDS = 4.0


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

    def checks(self) -> list[Check]:
        return [
            Check("name", _("Name resolution"), self._name),
            Check("proxy", _("Proxy"), self._proxy),
            Check("connection", _("Connection"), self._connection),
            *([Check("tls", _("TLS"), self._tls)] if self._secure else []),
            Check("address", _("Address and prefix"), self._address),
            Check("login", _("User name and password"), self._login),
            Check("version", _("Versions"), self._version),
            Check("clock", _("Clock"), self._clock),
        ]

    @functools.cached_property
    def info(self) -> Mapping[str, Any]:
        """What the server tells its users of itself. Raises Failed or Noted."""
        answer = self._get("-/info")
        if answer.status_code in {401, 403, 429}:
            raise Failed(
                _("the server does not accept your user name and password"),
                _body_message(answer),
                _("Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN): mlwf server env GROUP/ENV."),
            )
        if answer.status_code != requests.codes.ok:
            raise Noted(_("the server is not one of this service's, and does not tell its storage"))
        document: Mapping[str, Any] = answer.json()
        return document

    @functools.cached_property
    def _health(self) -> requests.Response:
        return self._get("health")

    def _get(self, path: str) -> requests.Response:
        try:
            return tracking_session(self.url, self._environ).get(f"{self.url}/{path}", timeout=SECONDS, allow_redirects=False)
        except requests.RequestException as error:
            cause = system_error(error)
            why = cause.strerror or str(cause) if cause else type(error).__name__
            raise Failed(
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
        proxies = tracking_session(self.url, self._environ).proxies
        proxy = proxies.get(urlsplit(self.url).scheme) or proxies.get("all")
        if not proxy:
            return _("none for this address")
        shown = re.sub(r"//[^@/]*@", "//…@", proxy)
        raise Noted(_("requests go through {proxy}; for a server inside, add {host} to no_proxy").format(proxy=shown, host=self.host))

    def _connection(self) -> str:
        try:
            with socket.create_connection((self.host, self._port), timeout=SECONDS):
                return _("port {port} answers").format(port=self._port)
        except OSError as error:
            raise Failed(
                _("port {port} of {host} cannot be reached").format(port=self._port, host=self.host),
                error.strerror or str(error),
                _("Is the server stopped (mlwf server list), or does a firewall stand between this node and it?"),
            ) from error

    def _tls(self) -> str:
        bundle = self._environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or self._environ.get("REQUESTS_CA_BUNDLE")
        try:
            context = ssl.create_default_context(cafile=bundle)
            with (
                socket.create_connection((self.host, self._port), timeout=SECONDS) as plain,
                context.wrap_socket(plain, server_hostname=self.host) as secure,
            ):
                until = str((secure.getpeercert() or {}).get("notAfter", ""))
                return _("{version}, certificate until {until}").format(version=secure.version(), until=until)
        except ssl.SSLCertVerificationError as error:
            cure = _("Name the site's CA in MLFLOW_TRACKING_SERVER_CERT_PATH, and check the host name.")
            raise Failed(_("the certificate is not trusted"), error.verify_message, cure) from error
        except OSError as error:
            why = error.strerror or str(error)
            raise Failed(_("no TLS connection can be made"), why, _("Is it an http:// address? Look at Service List.")) from error

    def _address(self) -> str:
        answer = self._health
        if answer.status_code == requests.codes.ok and answer.text.strip() == "OK":
            return _("{url}/health answers").format(url=self.url)
        cure = _("Give the URL as Service List shows it, such as http://HOST:PORT/mlflow/.")
        raise Failed(_("there is no MLflow at this address"), f"HTTP {answer.status_code}", cure)

    def _login(self) -> str:
        words = _("known to the server as {principal}").format(principal=self.info.get("principal", "?"))
        if str(self.info.get("principal", "")).startswith("token:"):
            path = file_before_token(self._environ)
            if path:
                raise Noted(words + _("; MLflow itself sends the user and password in {path} instead of the token").format(path=path))
        return words

    def _version(self) -> str:
        server = str(self.info.get("mlflow_version") or self._get("version").text.strip())
        client = self._python_mlflow()
        if not client:
            raise Noted(_("server {server}; this Python has no mlflow").format(server=server))
        words = _("server {server}, client {client}").format(server=server, client=client)
        if client.split(".")[0] != server.split(".", maxsplit=1)[0]:
            raise Noted(words + _("; the first numbers differ: new functions of the client may be missing on the server"))
        return words

    def _clock(self) -> str:
        try:
            there = parsedate_to_datetime(self._health.headers.get("Date", ""))
        except ValueError as error:
            raise Noted(_("the server does not tell its time")) from error
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


def _body_message(answer: requests.Response) -> str:
    try:
        return str(answer.json().get("message") or "")
    except (ValueError, AttributeError):
        return f"HTTP {answer.status_code}"
