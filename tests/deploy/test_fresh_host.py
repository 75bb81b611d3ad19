"""The installation page, done: a fresh Debian with systemd, the page's commands in their order; then what an admin does later."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.box import until
from tests.support.fresh_host import fresh_host
from tests.support.install_pages import HOST, Installed, Page, object_store
from tests.support.tls import Authority

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
PAGE = Page("install/service.md")
block = PAGE.block
SECONDS = 600
"""What the page promises: about ten minutes."""
NEWER = """
cd /opt/aihub/src
touch backend/newer.py mlwf/src/mlwf/newer.py tracking_server/newer.py
git add --all && git -c user.name=upstream -c user.email=upstream@example.org commit -qm "a version that changes code and nothing else"
"""


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    """Steps 1 to 4 of the page, its commands as they stand there."""
    with fresh_host() as host:
        began = time.monotonic()
        program = block("2. The program").replace("THIS_REPOSITORY", "/repo") + block("2. The program", number=1)
        accounts = f"cd /opt/aihub/src\n{block('3. Accounts, folders, settings')}"
        upgrade = f"{NEWER}{block('Upgrade')}{block('Upgrade', number=1)}"
        host.prepare("\n".join([block("1. Packages"), program, upgrade, accounts]))
        host.write("/etc/hosts", f"127.0.0.1 localhost {HOST}\n")
        host.boot()
        with object_store(host.in_its_network()) as store:
            settings = block("3. Accounts, folders, settings", "yaml").replace("https://s3.example.org", store["endpoint_url"])
            host.write("/etc/aihub/settings.yml", f"{settings}metrics_listen: 127.0.0.1:8440\n")
            host.run(f"cd /opt/aihub/src\n{block('4. Start')}")
            seconds = time.monotonic() - began
            found = Installed(host, store, seconds)
            found.add_alice()
            yield found


def test_the_pages_commands_lead_to_a_service_that_runs(installed: Installed) -> None:
    assert installed.seconds < SECONDS
    states = installed.host.run("systemctl is-active aihub-web aihub-reconciler").stdout.split()
    assert states == ["active", "active"]
    assert installed.host.run("systemctl --failed --no-legend").stdout == ""

    host = installed.host
    host.run("/opt/aihub/venv/bin/python -P -c 'import backend.newer, mlwf.newer'")
    assert host.run("ls /opt/aihub/src/tracking_server/__pycache__/newer.*.pyc").stdout

    # of the runtime it warns because of `allow_unisolated`
    until(lambda: set(installed.findings()) == {"runtime"}, what="a check that finds nothing else")


def test_the_first_tracking_server_under_the_units_rules(installed: Installed) -> None:
    said = installed.as_alice(block("4. Start", number=1).replace("GROUP", "alice").replace("BUCKET", "wine-models"))
    assert "Service created" in said
    assert "experiments" in installed.answers()


def test_what_answers_requests_can_put_nothing_in_a_servers_place(installed: Installed) -> None:
    """With `runtime: docker` the reconciler has root's daemon mount these folders: a link there would be any folder of the host."""
    host, pid = installed.host, installed.main_pid("aihub-web")
    (server,) = host.run("ls /var/lib/aihub/servers").stdout.split()
    entered = f"nsenter --target={pid} --mount setpriv --reuid=aihub --regid=aihub --clear-groups --no-new-privs"
    for tried, refused in (
        (f"mv servers/{server} servers/away", "Read-only file system"),
        ("ln -s / servers/.removed-k3v9x2m7q4ab", "Read-only file system"),
        ("touch kept/x previous/x replaced/x", "Read-only file system"),
        ("mv servers away", "busy"),
        ("umount servers", "must be superuser"),
    ):
        done = host.run(f"{entered} sh -c 'cd /var/lib/aihub && exec {tried}'", check=False)
        assert done.returncode != 0
        assert refused in done.stderr, tried
    host.run(f"{entered} touch /var/lib/aihub/registry.db")  # else it is the account's as ever


def test_a_restart_of_both_units_stops_no_server(installed: Installed) -> None:
    guards = "pgrep -f 'tracking_server /var/lib/aihub/servers'"
    before, units = installed.host.run(guards).stdout, [installed.main_pid(unit) for unit in ("aihub-web", "aihub-reconciler")]
    assert before
    installed.host.run(block("Upgrade", number=3))
    assert [installed.main_pid(unit) for unit in ("aihub-web", "aihub-reconciler")] != units
    assert installed.host.run(guards).stdout == before
    until(lambda: "experiments" in installed.answers(check=False), what="its user's login and its answer, once the API is there again")


def test_a_renewed_certificate_is_taken_over_without_a_restart(installed: Installed, tmp_path: Path) -> None:
    host, authority = installed.host, Authority(tmp_path / "site")

    def issue(folder: str) -> str:
        serial = f"{authority.issue(HOST).serial_number:X}"
        for name in ("privkey.pem", "fullchain.pem"):
            host.write(f"{folder}/{name}", (authority.folder / name).read_bytes(), 0o600)
        return serial

    def served() -> str:
        asked = f"echo | openssl s_client -connect {HOST}:8444 2>/dev/null | openssl x509 -noout -serial"
        return host.run(asked).stdout.strip().removeprefix("serial=").lstrip("0")

    first = issue("/root")
    host.write("/etc/aihub/ca.pem", authority.ca_file.read_bytes())
    commands = block("6. Callers on other hosts: TLS, MUNGE, tokens")
    host.run(f"mkdir -p /etc/aihub/tls; cp /root/*.pem /opt/aihub/src/; cd /opt/aihub/src\n{commands}")
    token = host.run("AIHUB_SETTINGS=/etc/aihub/settings.yml aihub tokens create --user alice --days 1").stdout.strip()
    asked = f"curl -sS --cacert /etc/aihub/ca.pem -H 'Authorization: Bearer {token}' https://{HOST}:8444/api/v1/me"
    assert json.loads(host.run(asked).stdout)["user"] == "alice"
    assert served() == first.lstrip("0")
    main = installed.main_pid("nginx")
    second = issue("/root/live")
    host.run(f"export RENEWED_LINEAGE=/root/live\n{block('6. Callers on other hosts: TLS, MUNGE, tokens', number=1)}")
    until(lambda: served() == second.lstrip("0"), what="the renewed certificate")
    assert installed.main_pid("nginx") == main
    assert json.loads(host.run(asked).stdout)["user"] == "alice"


def test_one_request_is_found_in_the_journal_and_the_numbers_are_there(installed: Installed) -> None:
    host = installed.host
    host.run("curl -sS --unix-socket /run/aihub/service.sock -H 'X-Request-Id: walk-1' http://localhost/api/v1/me")
    line = until(lambda: host.run("journalctl -o cat -u aihub-web -u aihub-reconciler | grep walk-1", check=False).stdout)
    assert "GET /api/v1/me 200" in line
    assert 'aihub_operations_total{kind="create",state="succeeded"} 1.0' in host.run("curl -sS http://127.0.0.1:8440/metrics").stdout


def test_the_firewalls_rules_are_accepted(installed: Installed) -> None:
    installed.host.run(f"cd /opt/aihub/src\n{block('5. Firewall')}")
    assert "table inet aihub\n" in installed.host.run("nft list tables").stdout


@pytest.mark.parametrize("verb", ["start", "reload", "restart"])
def test_the_hosts_own_rules_do_not_take_the_tables_place(installed: Installed, verb: str) -> None:
    """Each load of Debian's /etc/nftables.conf begins with `flush ruleset`."""
    host = installed.host
    host.run("nft add table inet other")
    host.run(f"systemctl {verb} nftables")
    assert "table inet other\n" not in host.run("nft list tables").stdout, "it was flushed"
    assert "table inet aihub\n" in host.run("nft list tables").stdout


def test_moving_to_an_emptied_host_brings_the_server_back_by_itself(installed: Installed) -> None:
    """The page's *Move to a new host*: the new one is this one, without its state."""
    host, before = installed.host, installed.answers()
    host.run(block("9. Move to a new host"))
    assert host.run("pgrep -u aihub -l", check=False).stdout == ""
    host.run("find /var/lib/aihub -mindepth 1 -delete")
    host.run(block("9. Move to a new host", number=1))
    host.run(f"cd /opt/aihub/src\n{block('4. Start')}")
    until(lambda: installed.answers(check=False) == before, what="the tracking server on the new host")


def test_after_a_restart_of_the_host_everything_is_back_by_itself(installed: Installed) -> None:
    host, before = installed.host, installed.answers()
    assert '"experiments"' in before
    host.shut_down()
    host.boot()
    until(lambda: installed.answers(check=False) == before, what="the tracking server, started by the reconciler")
    assert host.run("systemctl is-active aihub-web aihub-reconciler nginx").stdout.split() == ["active"] * 3
    assert "table inet aihub\n" in host.run("nft list tables").stdout


def test_what_was_installed_goes_again(installed: Installed) -> None:
    host = installed.host
    assert "tracking_server" in host.run("pgrep -u aihub -af tracking_server").stdout, "there is something to end"
    host.run(block("Uninstall"))
    assert host.run("systemctl is-active aihub-web aihub-reconciler", check=False).stdout.split() == ["inactive", "inactive"]
    assert host.run("pgrep -u aihub -l", check=False).stdout == ""
    assert host.run("find /etc -path /etc/aihub -prune -o -name '*aihub*' -print").stdout == ""
    assert "aihub" not in host.run("nft list tables").stdout
