"""A portal for tests: real Apache, configured to do to requests and answers what Open OnDemand of a version does. It is not Open OnDemand.

Headers that are taken away, the user's name, `Location`, cookies' paths, encoded slashes and the policies that are added follow the
documented behaviour of each version (docs/install/ondemand.md). People are signed in by a cookie, as with OpenID Connect, or by BASIC.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from demo.ports import LOOPBACK, free_ports
from tests.support.box import until

MODULES = Path("/usr/lib/apache2/modules")
LOADED: tuple[str, ...] = (
    "mpm_event",
    "authn_core",
    "authn_file",
    "authz_core",
    "authz_user",
    "auth_basic",
    "headers",
    "lua",
    "proxy",
    "proxy_http",
)
LOADED += ("setenvif", "env", "ssl", "socache_shmcb", "alias", "unixd")
VERSIONS = ("3.1", "4.0", "4.1", "4.2")
SESSION = "mod_auth_openidc_session"
PASSWORD = "the-portals-password"
STRIPPED = ("Authorization", "OIDC_access_token", "OIDC_id_token", "OIDC_CLAIM_sub", "X-Remote-User")
"""From 4.1 on; the list begins with the one that matters here."""


@dataclass
class Portal:
    """`users`: those whom the portal knows, with the port of their own web server where they have one. `basic`: they sign in by BASIC.
    `host`: its name in addresses; below `.localhost` a browser finds it. `ports`: those that /rnode leads to, a regular expression.
    `directives`: the site's `custom_location_directives`.
    """

    version: str
    users: Mapping[str, int | None]
    basic: bool = False
    host: str = LOOPBACK
    ports: str = r"\d+"
    directives: Sequence[str] = ()
    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="portal-", dir="/tmp")))
    port: int = field(default_factory=lambda: free_ports(1)[0])
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def origin(self) -> str:
        return f"https://{self.host}:{self.port}"

    @property
    def here(self) -> str:
        """The same for who knows no names."""
        return f"https://{LOOPBACK}:{self.port}"

    def outside(self, port: int) -> str:
        """The address from outside of the tracking server at that port."""
        return f"{self.origin}/rnode/{LOOPBACK}/{port}/mlflow/"

    def session(self, user: str) -> requests.Session:
        """A browser's stand-in that is signed in to the portal."""
        made = requests.Session()
        made.trust_env = False
        made.verify = str(self.home / "cert.pem")
        if self.basic:
            made.auth = (user, PASSWORD)
        else:
            made.cookies.set(SESSION, user)
        return made

    def start(self) -> None:
        self.home.chmod(0o755)
        _certificate(self.home)
        (self.home / "users").write_text("".join(f"{user}:{_hash()}\n" for user in self.users))
        (self.home / "apache.conf").write_text(self._configuration())
        with (self.home / "log").open("ab") as log:
            argv = ["setpriv", "--pdeathsig", "TERM", "apache2", "-DFOREGROUND", "-f", str(self.home / "apache.conf")]
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._answers, what="the portal")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def log(self) -> str:
        return (self.home / "access.log").read_text() + (self.home / "log").read_text()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "log").read_text()
        try:
            return requests.get(self.here, verify=str(self.home / "cert.pem"), timeout=5).status_code > 0
        except requests.ConnectionError:
            return False

    def _configuration(self) -> str:
        at_least = VERSIONS.index(self.version)
        strip = "".join(f"  RequestHeader unset {name}\n" for name in STRIPPED) if at_least >= VERSIONS.index("4.1") else ""
        hsts = 'Header always set Strict-Transport-Security "max-age=63072000"' if at_least >= VERSIONS.index("4.2") else ""
        basic = f"  AuthType Basic\n  AuthName portal\n  AuthUserFile {self.home}/users\n  Require valid-user\n"
        auth = basic if self.basic else "  Require env PORTAL_USER\n"
        puns = "\n".join(f"SetEnvIf Request_URI ^ PUN_{user}={port}" for user, port in self.users.items() if port)
        who = "" if self.basic else "\n".join(f'SetEnvIf Cookie "(^|; ){SESSION}={user}(;|$)" PORTAL_USER={user}' for user in self.users)
        own = "".join(f"  {line}\n" for line in self.directives)
        common = auth + own + strip + f'  RequestHeader edit* Cookie "(^|;\\s*){SESSION}[^;]*" ""\n'
        loads = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in LOADED if (MODULES / f"mod_{name}.so").exists())
        return f"""
{loads}
ServerRoot {self.home}
PidFile {self.home}/pid
ErrorLog {self.home}/log
LogFormat "%u %r %>s" plain
CustomLog {self.home}/access.log plain
User www-data
Group www-data
ServerName {LOOPBACK}
Listen {LOOPBACK}:{self.port}
SSLSessionCache none
ProxyTimeout 300
TraceEnable off
SSLEngine on
SSLCertificateFile {self.home}/cert.pem
SSLCertificateKeyFile {self.home}/key.pem
Header always set Content-Security-Policy "frame-ancestors {self.origin};"
{hsts}
{who}
{puns}
<Directory "/">
  Require all denied
</Directory>
<LocationMatch "^/rnode/(?<host>127\\.0\\.0\\.1)/(?<port>{self.ports})(?<uri>/.*|)">
{common}
  Header edit Location "^([^/]+//[^/]+)|(?=/)|^([\\./]{{1,}}(?<!/))" "/rnode/%{{MATCH_HOST}}e/%{{MATCH_PORT}}e"
  Header edit* Set-Cookie ";\\s*(?i)Domain[^;]*" ""
  Header edit* Set-Cookie ";\\s*(?i)Path[^;]*" ""
  Header edit Set-Cookie "^([^;]+)" "$1; Path=/rnode/%{{MATCH_HOST}}e/%{{MATCH_PORT}}e"
  LuaHookFixups {Path(__file__).with_name("portal.lua")} rnode
</LocationMatch>
<Location "/pun">
{auth}
  ProxyPreserveHost On
  Header edit* Set-Cookie ";\\s*(?i)Domain[^;]*" ""
  Header edit* Set-Cookie ";\\s*(?i)Path\\s*=(?-i)(?!\\s*/pun)[^;]*" "; Path=/pun"
  LuaHookFixups {Path(__file__).with_name("portal.lua")} pun
</Location>
"""


@contextmanager
def portal(version: str, users: Mapping[str, int | None], *, basic: bool = False) -> Iterator[Portal]:
    """A portal that runs."""
    made = Portal(version, users, basic)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _certificate(home: Path) -> None:
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    argv += ["-subj", f"/CN={LOOPBACK}", "-addext", f"subjectAltName=IP:{LOOPBACK}", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(argv, cwd=home, check=True, capture_output=True, env={"PATH": os.environ["PATH"]})


def _hash() -> str:
    import bcrypt

    return bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode().replace("$2b$", "$2y$")
