"""`runtime: docker` on a fresh Debian with systemd: the pages' commands in their order; then what such a host goes through."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from backend.networks.layout import install_id
from tests.support.box import MLFLOW_VERSION, environment, until
from tests.support.docker import Docker
from tests.support.fresh_host import fresh_host
from tests.support.install_pages import HOST, Installed, Page, object_store
from tests.support.site_network import HOST as ADDRESS
from tests.support.site_network import MACHINE, SiteNetwork, site_network

pytestmark = [pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(900)]
SERVICE, DOCKER, IMAGE = Page("install/service.md"), Page("howto/docker.md"), Page("howto/server-image.md")
TABLE = f"aihub_{install_id(Path('/var/lib/aihub'))}"
UNITS = ("aihub-web", "aihub-reconciler")
JOB = """
import mlflow
with mlflow.start_run():
    mlflow.log_metric("loss", 0.5)
    mlflow.log_text("hello from a container", "notes/hello.txt")
print(mlflow.artifacts.load_text(mlflow.last_active_run().info.artifact_uri + "/notes/hello.txt"))
print(len(mlflow.search_runs()), "runs")
"""
ASK = """
import os, requests
login = (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"])
url = os.environ["MLFLOW_TRACKING_URI"].rstrip("/") + "/api/2.0/mlflow/experiments/search?max_results=1"
print(requests.get(url, auth=login, timeout=20).status_code)
"""
LISTEN = """
import socket, sys
with socket.create_server(("0.0.0.0", 8099)):
    print("listens", flush=True)
    sys.stdin.read()
"""


PUBLISHED, OF_THE_SERVICE = 29999, 8443
ACCEPT = """
import socket, sys
with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as listener:
    while True:
        listener.accept()[0].close()
"""


@pytest.fixture(scope="module")
def site() -> Iterator[SiteNetwork]:
    with site_network(HOST) as site:
        yield site


@pytest.fixture(scope="module")
def installed(site: SiteNetwork, docker: Docker) -> Iterator[Installed]:
    """Both pages' steps in the order that they name, but for the image, which is brought as from another host."""
    image = docker.box_image(MLFLOW_VERSION)
    program = SERVICE.block("2. The program").replace("THIS_REPOSITORY", "/repo")
    accounts = SERVICE.block("3. Accounts, folders, settings")
    with fresh_host(site) as host, object_store(site.on_the_machine(), MACHINE) as store:
        began = time.monotonic()
        host.prepare("\n".join([SERVICE.block("1. Packages"), program, accounts, DOCKER.block("1. Docker")]))
        host.write("/etc/hosts", f"127.0.0.1 localhost\n{ADDRESS} {HOST}\n")
        host.boot()
        host.write("/etc/docker/daemon.json", DOCKER.block("1. Docker", "json"))
        host.run(DOCKER.block("1. Docker", number=1))
        bring(docker, image, host.inside("docker", "load"))
        host.write("/etc/aihub/settings.yml", settings(store["endpoint_url"]))
        for commands in (DOCKER.block("4. The firewall, and who may use Docker"), SERVICE.block("4. Start")):
            host.run(f"cd /opt/aihub/src\n{commands}")
        found = Installed(host, store, time.monotonic() - began)
        found.add_alice()
        yield found


def settings(endpoint_url: str) -> str:
    """The pages' own, with this site's object store."""
    first = yaml.safe_load(SERVICE.block("3. Accounts, folders, settings", "yaml"))
    del first["allow_unisolated"], first["listen_address"]
    return yaml.safe_dump({**first, **yaml.safe_load(DOCKER.block("3. Settings", "yaml")), "endpoint_url": endpoint_url})


def bring(docker: Docker, image: str, load: list[str]) -> None:
    """As docs/howto/server-image.md has it: `docker save … | ssh HOST docker load`."""
    with subprocess.Popen(["docker", "save", image], env=docker.environment, stdout=subprocess.PIPE) as saved:
        subprocess.run(load, stdin=saved.stdout, check=True, capture_output=True, timeout=300)
    assert saved.returncode == 0


def on_another_machine(installed: Installed, site: SiteNetwork, program: str, *, check: bool = True) -> str:
    """A Python program beside the object store, with what `mlwf server env` told its user."""
    surroundings = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **installed.login}
    argv = site.on_the_machine(environment() / "bin" / "python", "-c", program)
    done = subprocess.run(argv, cwd="/tmp", env=surroundings, capture_output=True, text=True, check=False, timeout=170)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def answers(installed: Installed, site: SiteNetwork) -> bool:
    """Whether the tracking server knows its user, asked from another machine."""
    return on_another_machine(installed, site, ASK, check=False).strip() == "200"


def containers(installed: Installed) -> dict[str, str]:
    """Role to id and start time of those that run."""
    listed = "docker ps -q --no-trunc --filter label=org.aihub.server | xargs -r docker inspect -f "
    shown = installed.host.run(listed + "'{{index .Config.Labels \"org.aihub.role\"}} {{.Id}} {{.State.StartedAt}}'").stdout
    return dict(line.split(" ", 1) for line in shown.splitlines())


def test_the_pages_commands_lead_to_a_service_that_runs(installed: Installed) -> None:
    assert installed.seconds < 600, "what the page promises: about ten minutes"
    host = installed.host
    assert host.run(f"systemctl is-active docker aihub-firewall.timer {' '.join(UNITS)}").stdout.split() == ["active"] * 4
    assert host.run("systemctl --failed --no-legend").stdout == ""
    until(lambda: installed.findings() == {}, what="a check that finds nothing")


def test_every_program_that_the_pages_call_is_there(installed: Installed) -> None:
    called = SERVICE.programs() | DOCKER.programs(but="Podman in Docker's place") | IMAGE.programs()
    assert {"git", "jq", "docker", "xargs", "tracking_server/build-image", "mlwf"} <= called
    words = shlex.join(program for program in sorted(called) if "/envs/" not in program)  # of `runtime: process`
    asked = f"cd /opt/aihub/src; PATH=/opt/aihub/venv/bin:$PATH; for each in {words}; do type -t -- $each >/dev/null || echo $each; done"
    assert installed.host.run(asked).stdout.split() == []


def test_a_job_on_another_machine_logs_a_run(installed: Installed, site: SiteNetwork) -> None:
    said = installed.as_alice("mlwf server create alice/wine --bucket wine-models --profile default")
    assert "Service created" in said
    installed.as_alice("mlwf server auth alice/wine --generate")
    installed.learn_login()
    assert on_another_machine(installed, site, JOB).splitlines()[-2:] == ["hello from a container", "1 runs"]


def test_a_restart_of_both_units_changes_nothing_of_the_servers(installed: Installed, site: SiteNetwork) -> None:
    """Their folders keep their owners, too, which are neither unit's."""
    owners = "find /var/lib/aihub/servers -mindepth 2 -maxdepth 2 -printf '%p %U:%G\\n' | sort"
    before, run = installed.host.run(owners).stdout, containers(installed)
    assert len(run) == 2
    for unit in UNITS:
        installed.host.run(f"systemctl restart {unit}")
        assert installed.host.run(owners).stdout == before
    assert containers(installed) == run
    assert answers(installed, site)


def test_the_upgrades_stop_and_start_makes_every_container_anew(installed: Installed, site: SiteNetwork) -> None:
    before = containers(installed)
    installed.host.run(SERVICE.block("Upgrade", number=4))
    after = containers(installed)
    assert set(after) == set(before) == {"gate", "mlflow"}
    assert not set(after.values()) & set(before.values())
    assert answers(installed, site)


def reaches(installed: Installed, role: str, address: str, port: int | str) -> bool:
    """From inside the server's container of that role."""
    program = f'import socket; socket.create_connection(("{address}", {port}), 3)'
    container = containers(installed)[role].split()[0]
    done = installed.host.run(f"docker exec {container} /opt/aihub/env/bin/python -c '{program}'", check=False)
    return done.returncode == 0


def machine_reaches(site: SiteNetwork, port: int) -> bool:
    """From the other machine, at the host's address."""
    argv = site.on_the_machine(sys.executable, "-c", f'import socket; socket.create_connection(("{ADDRESS}", {port}), 3)')
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


@pytest.fixture
def no_timer(installed: Installed) -> Iterator[None]:
    """Nothing puts the containers' rules in force between two lines of a test, which each look at the names does."""
    installed.host.run("systemctl stop aihub-firewall.timer aihub-firewall-names.service")
    yield
    installed.host.run("systemctl reset-failed aihub-firewall-names.service || true")  # its starts are counted, too: five in ten seconds
    installed.host.run("systemctl start aihub-firewall-names.service aihub-firewall.timer")


@pytest.mark.usefixtures("no_timer")
def test_the_containers_reach_the_object_store_alone(installed: Installed, site: SiteNetwork) -> None:
    store = installed.store["endpoint_url"].rpartition(":")[2]
    argv = site.on_the_machine(sys.executable, "-c", LISTEN)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == b"listens\n"
        assert reaches(installed, "mlflow", MACHINE, store)
        assert not reaches(installed, "mlflow", MACHINE, 8099)
        assert not reaches(installed, "gate", MACHINE, store)
        installed.host.run("AIHUB_SETTINGS=/etc/aihub/settings.yml aihub firewall --remove")
        assert reaches(installed, "mlflow", MACHINE, 8099), "without rules it does: what this test proves is theirs"
        installed.host.run("systemctl start aihub-firewall")
        assert not reaches(installed, "mlflow", MACHINE, 8099)
        assert listener.stdin is not None
        listener.stdin.close()


@pytest.mark.usefixtures("no_timer")
def test_the_containers_reach_neither_another_server_nor_the_service_at_the_hosts_address(installed: Installed, site: SiteNetwork) -> None:
    """Where clients reach both: at the port that Docker publishes for a gate, and at one of the service's own."""
    host, argv = installed.host, ("python3", "-I", "-c", ACCEPT)
    options = f"--network {TABLE.replace('_', '-')}-gate --publish {ADDRESS}:{PUBLISHED}:{PUBLISHED} --entrypoint /opt/aihub/env/bin/python"
    gate = shlex.join([f"aihub-box:{MLFLOW_VERSION}", *argv[1:], str(PUBLISHED)])
    try:
        host.run(f"docker run --detach --name neighbour {options} {gate}")
        host.run(f"systemd-run --unit=aihub-neighbour {shlex.join([*argv, str(OF_THE_SERVICE)])}")
        for port in (PUBLISHED, OF_THE_SERVICE):
            until(lambda port=port: machine_reaches(site, port), what=f"an answer at the port {port}")  # type: ignore[misc]
        tried = [(role, port) for role in ("gate", "mlflow") for port in (PUBLISHED, OF_THE_SERVICE)]
        assert [place for place in tried if reaches(installed, place[0], ADDRESS, place[1])] == []
        host.run("AIHUB_SETTINGS=/etc/aihub/settings.yml aihub firewall --remove")
        assert reaches(installed, "mlflow", ADDRESS, OF_THE_SERVICE), "without rules it does"
        host.run("systemctl start aihub-firewall")
        assert not reaches(installed, "mlflow", ADDRESS, OF_THE_SERVICE)
    finally:
        host.run("docker rm --force neighbour; systemctl stop aihub-neighbour; systemctl start aihub-firewall", check=False)


@pytest.mark.usefixtures("no_timer")
def test_a_name_without_an_address_is_closed_and_opens_nothing_else(installed: Installed) -> None:
    host, right = installed.host, (installed.host.root / "etc/aihub/settings.yml").read_text()
    host.write("/etc/aihub/settings.yml", right.replace("10.9.0.0/16:443", "nowhere.example.org:443"))
    try:
        in_force = host.run(f"nft list table inet {TABLE}").stdout
        assert host.run("systemctl start aihub-firewall-names", check=False).returncode != 0
        host.run("systemctl reset-failed docker; systemctl restart docker")  # three starts in a minute are all that systemd does
        assert "the rules in force stay" in host.journal("-u", "aihub-firewall")
        assert host.run(f"nft list table inet {TABLE}").stdout == in_force
        host.run(f"nft delete table inet {TABLE}; systemctl start aihub-firewall")
        assert MACHINE in host.run(f"nft list table inet {TABLE}").stdout
        said = host.journal("-u", "aihub-firewall")
        assert "nowhere.example.org has no address" in said
        assert "closed to the containers" in said
    finally:
        host.write("/etc/aihub/settings.yml", right)


def test_a_restart_of_docker_cuts_nobody_off(installed: Installed, site: SiteNetwork) -> None:
    before, rules = containers(installed), installed.host.run(f"nft list table inet {TABLE}").stdout
    installed.host.run("systemctl restart docker")
    assert answers(installed, site)
    assert containers(installed) == before
    assert installed.host.run(f"nft list table inet {TABLE}").stdout == rules


def as_the_api(installed: Installed, socket: str, *, group: str = "") -> str:
    """What that socket answers a process in the mounts, and with the account and the groups (and another), of what answers requests."""
    host, pid = installed.host, installed.main_pid("aihub-web")
    (own,) = (line.split()[1:] for line in host.run(f"cat /proc/{pid}/status").stdout.splitlines() if line.startswith("Groups:"))
    groups = ",".join([*own, *([group] if group else [])])
    entered = f"nsenter --target {pid} --mount -- setpriv --reuid=aihub --regid=aihub"
    rights = f"--groups={groups}" if groups else "--clear-groups"
    return host.run(f"{entered} {rights} curl --silent --unix-socket {socket} http://here/_ping", check=False).stdout


def test_what_answers_requests_reaches_no_docker_also_when_its_socket_is_made_anew(installed: Installed, site: SiteNetwork) -> None:
    """The unit hides the socket that was there when it started: one that is made later is kept from it by its group alone."""
    host, docker = installed.host, "/run/docker.sock"
    ask = f"setpriv --reuid=aihub --regid=aihub --groups=docker curl --silent --unix-socket {docker} http://here/_ping"
    for command, with_group in (("true", ""), ("systemctl reset-failed docker; systemctl restart docker.socket docker", "OK")):
        host.run(command)
        assert host.run(ask).stdout == "OK", "whoever has the group does"
        assert as_the_api(installed, "/run/aihub/service.sock") != "", "another socket answers there"
        assert as_the_api(installed, docker) == ""
        assert as_the_api(installed, docker, group="docker") == with_group
    host.run("usermod --append --groups docker aihub")
    assert installed.findings() == {"daemon": "warning"}
    host.run("gpasswd --delete aihub docker")
    until(lambda: answers(installed, site) and installed.findings() == {}, what="all as before")


@pytest.mark.parametrize("verb", ["start", "reload", "restart"])
def test_the_hosts_own_rules_take_neither_ours_nor_dockers_away(installed: Installed, site: SiteNetwork, verb: str) -> None:
    """Each load of Debian's /etc/nftables.conf begins with `flush ruleset`."""
    host, store = installed.host, installed.store["endpoint_url"].rpartition(":")[2]
    before, docker = containers(installed), installed.main_pid("docker")
    host.run(f"nft add table inet other; systemctl {verb} nftables")
    assert "table inet other\n" not in host.run("nft list tables").stdout, "it was flushed"
    until(lambda: host.run(f"nft list table inet {TABLE}", check=False).returncode == 0, what="the containers' rules")
    until(lambda: installed.main_pid("docker") not in {0, docker}, what="Docker's restart")
    until(lambda: answers(installed, site), what="the published port")
    assert containers(installed) == before
    assert reaches(installed, "mlflow", MACHINE, store)
    assert not reaches(installed, "gate", MACHINE, store)


def test_docker_does_not_start_without_the_rules(installed: Installed, site: SiteNetwork) -> None:
    host, right = installed.host, (installed.host.root / "etc/aihub/settings.yml").read_text()
    host.run("systemctl stop docker.socket docker")
    host.write("/etc/aihub/settings.yml", f"{right}no_such_setting: 1\n")
    assert host.run("systemctl start docker", check=False).returncode != 0
    assert "no_such_setting" in host.journal("-u", "aihub-firewall")
    host.write("/etc/aihub/settings.yml", right)
    host.run("systemctl start docker")
    assert answers(installed, site)


def journal(installed: Installed, message: str) -> int:
    """Where systemd says that in the journal since the host's start."""
    lines = installed.host.journal("--boot", "_PID=1").splitlines()
    return next(index for index, line in enumerate(lines) if line.startswith(message))


def test_after_a_boot_without_the_service_the_server_answers_behind_the_firewall(installed: Installed, site: SiteNetwork) -> None:
    host, before = installed.host, containers(installed)
    host.run(f"systemctl disable {' '.join(UNITS)}")
    host.shut_down()
    assert not answers(installed, site)
    host.boot()
    until(lambda: answers(installed, site), what="the tracking server, started by Docker")
    assert host.run(f"systemctl is-active {' '.join(UNITS)}", check=False).stdout.split() == ["inactive"] * 2
    assert journal(installed, "Finished aihub-firewall.service") < journal(installed, "Starting docker.service")
    assert f"table inet {TABLE}" in host.run("nft list tables").stdout
    assert {there.split()[0] for there in containers(installed).values()} == {there.split()[0] for there in before.values()}
    assert on_another_machine(installed, site, JOB).splitlines()[-2:] == ["hello from a container", "2 runs"]


def test_the_service_takes_over_what_runs(installed: Installed, site: SiteNetwork) -> None:
    before = containers(installed)
    installed.host.run(f"systemctl enable --now {' '.join(UNITS)}")
    until(lambda: installed.findings() == {}, what="a check that finds nothing")
    listed = json.loads(installed.as_alice("mlwf server list --json"))["servers"]
    assert [each["status"] for each in listed] in (["running"], ["sleeping"])
    assert containers(installed) == before
    assert answers(installed, site)


def test_after_a_power_cut_all_is_back_by_itself(installed: Installed, site: SiteNetwork) -> None:
    installed.host.cut_power()
    installed.host.boot()
    until(lambda: answers(installed, site), what="the tracking server")
    assert on_another_machine(installed, site, JOB).splitlines()[-2:] == ["hello from a container", "3 runs"]
    until(lambda: installed.findings() == {}, what="a check that finds nothing")


def test_moving_to_an_emptied_host_brings_the_server_back(installed: Installed, site: SiteNetwork) -> None:
    """The install page's *Move to a new host*: the new one is this one, without its state and its containers."""
    host, moved = installed.host, "9. Move to a new host"
    host.run(SERVICE.block(moved))
    assert containers(installed) == {}
    host.run("docker ps -aq | xargs docker rm -f; find /var/lib/aihub -mindepth 1 -delete")
    host.run(SERVICE.block(moved, number=1))
    host.run(f"cd /opt/aihub/src\n{SERVICE.block('4. Start')}")
    until(lambda: answers(installed, site), what="the tracking server on the new host")
    assert on_another_machine(installed, site, JOB).splitlines()[-2:] == ["hello from a container", "4 runs"]


def test_what_was_installed_goes_again(installed: Installed) -> None:
    installed.host.run(SERVICE.block("Uninstall"))
    installed.host.run(DOCKER.block("Uninstall"))
    assert installed.host.run("docker ps -aq").stdout == ""
    assert TABLE not in installed.host.run("nft list tables").stdout
    assert "aihub" not in installed.host.run("docker network ls").stdout
    assert installed.host.run("systemctl is-active docker").stdout == "active\n"
