"""A centre for tests: portal, each user's own console, service, box, object store. Nothing is stood in for but Open OnDemand itself."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from mlwf.client import Client
from mlwf.secret import Secret
from mlwf.user import User
from playwright.sync_api import Browser, BrowserContext, Page

from demo.ports import LOOPBACK, free_ports
from tests.mlwf.tracking import MLMODEL
from tests.service.edge.live import Live
from tests.support.box import until
from tests.support.docker import Docker
from tests.support.ordinary import write_program
from tests.support.portal import SESSION, VERSIONS, Portal
from tests.support.pun import MOUNT
from tests.support.runtimes import service_on
from tests.support.s3 import S3Store

# Accounts that every Debian has: the first two share a group, the third is a stranger to it.
OWNER, MEMBER, STRANGER = "sync", "nobody", "games"
GROUP = "nogroup"
JOB = ("job", "the-password-of-jobs")
"""The registered user."""
# What a run may hold to harm who looks at it: with the portal's session it would stop the server, and say so.
ATTACK = f"""<!doctype html><p id=shown>an uploaded page</p><script>
(async () => {{
  const page = await (await fetch('{MOUNT}/')).text();
  const token = page.split('name="csrf-token" content="')[1].split('"')[0];
  const headers = {{'X-CSRFToken': token, 'Content-Type': 'application/json'}};
  await fetch('{MOUNT}/api/servers/{GROUP}/wine/stop', {{method: 'POST', headers, body: '{{}}'}});
}})();
</script>"""


def portal_session(user: str, portal: Portal) -> Any:
    """The cookie of who is logged in to that portal; like a real one's it is not for scripts."""
    return {"name": SESSION, "value": user, "url": portal.origin, "httpOnly": True, "secure": True}


@dataclass
class Centre:
    """`url`: the server's address from outside."""

    portal: Portal
    live: Live
    browser: Browser
    run_id: str = ""
    url: str = ""

    def client(self) -> Client:
        return self.live.client()

    def context(self, user: str) -> BrowserContext:
        """A browser whose user has a portal session, and nothing else."""
        made = self.browser.new_context(ignore_https_errors=True, viewport={"width": 1500, "height": 1000})
        made.set_default_timeout(60_000)
        made.add_cookies([portal_session(user, self.portal)])
        return made

    def console(self, context: BrowserContext) -> Page:
        page = context.new_page()
        page.goto(f"{self.portal.origin}{MOUNT}/")
        return page

    def open(self, context: BrowserContext) -> Page:
        """One click on Open."""
        page = self.console(context)
        with context.expect_page() as opened:
            page.get_by_role("link", name="Open").click()
        opened.value.wait_for_url(f"{self.url}**")
        return opened.value


def _console_of(user: str, port: int, program: Path, portal: Portal, live: Live) -> "subprocess.Popen[bytes]":
    account = pwd.getpwnam(user)
    settings = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "SECRET_KEY_BASE": user * 16,
        "MLWF_SERVICE": f"unix://{live.socket}",
        "AIHUB_CONSOLE_PORTAL_URL": portal.origin,
    }
    as_user = ["setpriv", "--pdeathsig", "TERM", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    return subprocess.Popen([*as_user, str(program), str(port)], env=settings, cwd="/", stdin=subprocess.DEVNULL)


@contextmanager
def open_centre(
    browser: Browser,
    store: S3Store,
    *,
    containers: Docker | None = None,
    host: str = LOOPBACK,
    version: str = VERSIONS[-1],
    **options: Any,
) -> Iterator[Centre]:
    """A centre whose console and server have that host name. `containers`: see tests/support/runtimes.py. The rest: of its portal."""
    users = (OWNER, MEMBER, STRANGER)
    portal = Portal(version, dict(zip(users, free_ports(3), strict=True)), host=host, **options)
    portal.home.chmod(0o755)
    program = write_program(portal.home / "console", "tests.support.pun")
    consoles: list[subprocess.Popen[bytes]] = []
    with service_on(containers, store, portal_url=portal.origin, idle_seconds=0) as live:
        try:
            portal.start()
            consoles += [_console_of(user, port or 0, program, portal, live) for user, port in portal.users.items()]
            made = Centre(portal, live, browser)
            for user in users:
                until(
                    lambda user=user: portal.session(user).get(f"{portal.here}{MOUNT}/", timeout=10).status_code == 200,  # type: ignore[misc]
                    what=f"the console of {user}",
                )
            _fill(made, store)
            yield made
        finally:
            for console in consoles:
                console.terminate()
                console.wait(20)
            portal.stop()


def _fill(centre: Centre, store: S3Store) -> None:
    """A server with a run that holds a hostile page, and a registered model; all written as a job does, from inside."""
    with centre.client() as client:
        wish = {"group": GROUP, "env_name": "wine", "bucket": store.make_bucket(), "access_key_id": store.owner.access_key}
        client.wait(client.create(**wish, secret_access_key=Secret(store.owner.secret_key)))
        server = client.server(GROUP, "wine")
        client.wait(client.set_users(GROUP, "wine", [User(JOB[0], Secret(JOB[1]))]))
    centre.url = str(server.outside_url)

    def ask(path: str, **body: Any) -> dict[str, Any]:
        answer = requests.post(f"{server.inside_url}api/2.0/mlflow/{path}", json=body, auth=JOB, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    run = ask("runs/create", experiment_id="0", run_name="a run of the portal test")["run"]["info"]
    centre.run_id = run["run_id"]
    place = f"{server.inside_url}api/2.0/mlflow-artifacts/artifacts/0/{centre.run_id}/artifacts"
    for name, content in {"page.html": ATTACK.encode(), "model/MLmodel": MLMODEL, "large.bin": b"0123456789abcdef" * 2_000_000}.items():
        assert requests.put(f"{place}/{name}", data=content, auth=JOB, timeout=60).status_code == 200
    ask("runs/log-metric", run_id=centre.run_id, key="rmse", value=0.78, timestamp=1)
    ask("registered-models/create", name="PortalModel")
    ask("model-versions/create", name="PortalModel", source=f"runs:/{centre.run_id}/model", run_id=centre.run_id)
