"""One user's console in a process of its own, as a portal starts it, asked as its page asks."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from demo.ports import free_ports
from tests.service.edge.live import Live, until
from tests.support.ordinary import write_program
from tests.support.pun import MOUNT


class UserConsole:
    """`log`: what it says, which a portal keeps for each user."""

    def __init__(self, port: int, log: Path) -> None:
        self.log = log
        self.origin = f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        self.session.trust_env = False

    def is_there(self) -> bool:
        try:
            page = self.session.get(f"{self.origin}{MOUNT}/", timeout=20).text
        except requests.RequestException:
            return False
        token = page.split('name="csrf-token" content="')[1].split('"')[0]
        self.session.headers.update({"Origin": self.origin, "Sec-Fetch-Site": "same-origin", "X-CSRFToken": token})
        return True

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        sent = None if method == "GET" else body or {}
        return self.session.request(method, f"{self.origin}{MOUNT}/{path}", json=sent, headers=headers, timeout=60)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of the page's own requests."""
        answer = self.send(method, f"api/{path}", body, **headers)
        return answer.status_code, answer.json()

    def servers(self) -> list[dict[str, Any]]:
        status, found = self.ask("GET", "state")
        assert status == 200, found
        return list(found["servers"])

    def do(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        """Ask for an operation and wait for its end; it must be a good one."""
        status, asked = self.ask(method, path, body, **headers)
        assert status == 202, asked

        def ended() -> Any:
            (operation,) = self.ask("GET", f"state?op={asked['id']}")[1]["operations"]
            return operation["finished_at"] and operation

        done: dict[str, Any] = until(ended, what=f"the end of {path}")
        assert done["state"] == "succeeded", done["error"]
        return done


@contextmanager
def user_console(live: Live, *begin: str, name: str = "user") -> Iterator[UserConsole]:
    """`begin`: what its command begins with, so that it is a user's."""
    (port,) = free_ports(1)
    program = write_program(live.home / f"console-of-{name}", "tests.support.pun")
    settings = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "SECRET_KEY_BASE": name * 16, "MLWF_SERVICE": f"unix://{live.socket}"}
    argv = [*begin, "setpriv", "--pdeathsig", "TERM", str(program), str(port)]
    console = UserConsole(port, live.home / f"log-of-{name}")
    with console.log.open("wb") as log:
        process = subprocess.Popen(argv, env=settings, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(console.is_there, what=f"the console of {name}")
        yield console
    finally:
        process.terminate()
        process.wait(20)
