"""The site kit's files for Podman on a Debian with systemd: its socket is there behind the firewall's rules, and not without them."""

from collections.abc import Iterator

import pytest

from tests.support.fresh_host import FreshHost, fresh_host
from tests.support.install_pages import Page

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
DOCKER, SERVICE = Page("howto/docker.md"), Page("install/service.md")
AIHUB = "#!/bin/sh\n! test -e /etc/without-rules\n"
"""In place of `aihub firewall --ensure`, which is tried elsewhere: whether it can."""
ASK = "curl -sS --unix-socket /run/aihub-podman.sock http://podman/_ping"
UNITS = "podman.socket podman-restart.service"


@pytest.fixture(scope="module")
def host() -> Iterator[FreshHost]:
    """The page's commands, but for the firewall's timer."""
    socket = DOCKER.block("Podman in Docker's place")
    packages, socket = socket.split("\n", 1)
    with fresh_host() as host:
        accounts = SERVICE.block("3. Accounts, folders, settings")
        host.prepare(f"{packages} git\ngit clone /repo /opt/aihub/src\ncd /opt/aihub/src\n{accounts}")
        host.write("/opt/aihub/venv/bin/aihub", AIHUB, 0o755)
        host.boot()
        unit = "install -m 0644 deploy/systemd/aihub-firewall.service /etc/systemd/system/"
        host.run(f"cd /opt/aihub/src\n{unit}\nsystemctl enable aihub-firewall\n{socket}")
        yield host


def boot(host: FreshHost) -> str:
    """Off and on; what systemd itself said meanwhile."""
    host.shut_down()
    host.boot()
    return host.journal("--boot", "_PID=1")


def test_after_a_boot_the_socket_comes_behind_the_rules(host: FreshHost) -> None:
    said = boot(host)
    assert "ordering cycle" not in said
    lines = said.splitlines()
    rules, socket = (
        next(at for at, line in enumerate(lines) if line.startswith(word))
        for word in ("Finished aihub-firewall.service", "Listening on podman")
    )
    assert rules < socket
    assert host.run(f"systemctl is-active {UNITS}", check=False).stdout.split() == ["active", "active"]
    assert host.run(ASK).stdout == "OK"


def test_without_the_rules_there_is_no_socket(host: FreshHost) -> None:
    host.write("/etc/without-rules", "")
    said = boot(host)
    assert "Dependency failed for podman.socket" in said
    assert host.run(f"systemctl is-active {UNITS}", check=False).stdout.split() == ["inactive", "inactive"]
    assert host.run(ASK, check=False).returncode != 0
    (host.root / "etc/without-rules").unlink()
    host.run("systemctl start podman.socket")
    assert host.run(ASK).stdout == "OK"
