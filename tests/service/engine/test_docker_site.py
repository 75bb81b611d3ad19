"""The whole engine on a real daemon: a server made, given users, stopped, deleted and restored in containers; and what happens to it on a
bad day. The service's account is not root.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backend.checks import service as checks
from backend.networks import layout
from backend.networks.layout import install_id
from backend.runtimes.docker_seen import Container
from backend.runtimes.docker_spec import GATE_CPUS, GATE_MEMORY, GATE_PIDS
from tests.service.engine.contract_upgrade import assert_nothing_answered_is_lost, writers
from tests.service.engine.crash_child import Crash
from tests.service.engine.docker_site import DockerSite, docker_site, run_as_root, state_folder
from tests.service.engine.real_site import PASSWORD
from tests.service.engine.support import ADMIN, SECRET, until
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import Docker, DockerError

pytestmark = [pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(600)]
METADATA = "169.254.169.254"


@pytest.fixture(scope="module")
def site(docker: Docker) -> Iterator[DockerSite]:
    with state_folder() as home, docker_site(docker, home) as site:
        site.make()
        yield site


def test_it_serves_with_its_users(site: DockerSite):
    assert site.experiments() == ["Default"]
    site.call("experiments/create", {"name": "first"})


def test_neither_has_a_right_or_shows_a_secret(site: DockerSite):
    uid = site.one().uid
    for role, own in (("gate", uid), ("mlflow", uid + 1)):
        (found,) = json.loads(site.docker.run("inspect", site.containers()[role]))
        host = found["HostConfig"]
        assert (found["Config"]["User"], host["CapDrop"], host["CapAdd"]) == (f"{own}:{own}", ["ALL"], None)
        assert (host["ReadonlyRootfs"], host["Privileged"], host["SecurityOpt"]) == (True, False, ["no-new-privileges:true"])
        assert host["Memory"] == host["MemorySwap"] > 0
        assert host["PidsLimit"] > 0
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        text = json.dumps(found)
        assert SECRET not in text
        assert PASSWORD not in text
        status = site.inside(role, "print(open('/proc/1/status').read())").stdout
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status


def test_what_bounds_it_is_in_force_as_the_kernel_says_it_inside(site: DockerSite):
    (small, *_) = site.settings.sizes
    assert (site.bounds("gate"), site.bounds("mlflow")) == (
        (GATE_MEMORY, GATE_MEMORY, GATE_PIDS, GATE_CPUS),
        (small.memory, small.memory, small.pids, small.cpus),
    )


def test_mlflow_sees_no_file_of_the_guard(site: DockerSite):
    code = "import os; print([path for name in ('config', 'run', 'log') for path in os.listdir('/box/' + name)])"
    assert site.inside("mlflow", code).stdout.strip() == "[]"


def nft(rules: str) -> None:
    run_as_root("nft", "-f", "-", text=rules)


@contextlib.contextmanager
def open_places(install: str) -> Iterator[int]:
    """A port of this host that only our rules can close: it has a link-local address, too, as a cloud's metadata have. What Docker itself
    drops between its bridges goes through meanwhile.
    """
    gate, mlflow = layout.bridge_names(install)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("0.0.0.0", 0)))  # noqa: S104 (what a box must not reach)
        run_as_root("ip", "address", "add", f"{METADATA}/32", "dev", "lo")
        stack.callback(run_as_root, "ip", "address", "delete", f"{METADATA}/32", "dev", "lo")
        for one, other in ((gate, mlflow), (mlflow, gate)):
            rule = ("DOCKER-USER", "-i", one, "-o", other, "-j", "ACCEPT")
            run_as_root("iptables", "-I", *rule)
            stack.callback(run_as_root, "iptables", "-D", *rule)
        yield listener.getsockname()[1]


def test_the_firewall_refuses_all_but_the_allow_list(site: DockerSite):
    install = install_id(site.settings.state_dir)
    gateway, gate = "10.214.3.1", address_of(site, site.containers()["gate"])

    def reaches(role: str, host: str, port: int) -> bool:
        return site.inside(role, CONNECT.format(host, port)).returncode == 0

    with open_places(install) as port:
        places = [
            ("mlflow", gateway, port),
            ("mlflow", gate, site.one().port),
            ("mlflow", METADATA, port),
            ("gate", gateway, port),
            ("gate", "10.214.2.1", port),
            ("gate", METADATA, port),
        ]
        assert [place for place in places if not reaches(*place)] == [], "without rules all is open: what the rest proves is theirs"
        nft(layout.ruleset(install, [], []))
        try:
            assert site.answers()
            assert [place for place in places if reaches(*place)] == []
            nft(layout.ruleset(install, layout.targets([f"{gateway}:{port}"]), []))
            assert reaches("mlflow", gateway, port)
            assert not reaches("gate", gateway, port)
            (target,) = layout.targets([f"{gateway}:{port}"])
            nft(layout.ruleset(install, [], [], [layout.Answer(target=target, entry="name:1", seconds=600)]))
            assert reaches("mlflow", gateway, port), "an address that a name had before"
            assert not reaches("gate", gateway, port)
        finally:
            nft(f"delete table inet aihub_{install}\n")


LISTENER = """
import socket, sys, threading
address = (sys.argv[1], int(sys.argv[2]))
datagrams = socket.socket(type=socket.SOCK_DGRAM)
datagrams.bind(address)
streams = socket.create_server(address)
def echo():
    while True:
        datagrams.sendto(*datagrams.recvfrom(512))
threading.Thread(target=echo, daemon=True).start()
print("ready", flush=True)
while True:
    streams.accept()[0].close()
"""
CONNECT = "import socket; socket.create_connection(({!r}, {}), 3)"
ASK = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(3); s.sendto(b'?', ({!r}, {})); s.recv(512)"


@pytest.fixture
def listen(site: DockerSite) -> Iterator[Callable[..., None]]:
    """Starts a listener for TCP and UDP by that command, and waits until it is there."""
    with contextlib.ExitStack() as stack:

        def start(*argv: str, **options: Any) -> None:
            whole = [*argv, "-I", "-c", LISTENER]
            process = stack.enter_context(subprocess.Popen([*whole, *options.pop("to")], stdout=subprocess.PIPE, text=True, **options))
            stack.callback(run_as_root, "kill", "-KILL", str(process.pid))
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

        yield start


@pytest.fixture
def other(site: DockerSite) -> Iterator[dict[str, Container]]:
    """A second server's containers, on the same two bridges."""
    site.ask_and_wait(site.create("beer", "bucket-b"))
    yield dict(site.engine.of(site.one("beer").id, fresh=True))
    site.ask_and_wait(site.ask("delete", "beer"))


def address_of(site: DockerSite, container: str) -> str:
    return site.docker.run("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)


@pytest.mark.parametrize("rules", [False, True], ids=["Docker's rules alone", "with the firewall"])
def test_servers_on_one_bridge_do_not_reach_each_other(
    site: DockerSite, other: dict[str, Container], listen: Callable[..., None], *, rules: bool
):
    gate, mlflow = (address_of(site, other[role].name) for role in ("gate", "mlflow"))
    listen("docker", "exec", other["mlflow"].name, "/opt/aihub/env/bin/python", to=["0.0.0.0", "5000"], env=site.docker.environment)  # noqa: S104 (in the container)
    port = site.one("beer").port
    own = address_of(site, site.containers()["gate"])
    assert site.inside("gate", CONNECT.format(own, site.one().port)).returncode == 0, "a gate listens at its address"
    for host, to in ((gate, port), (mlflow, 5000)):
        socket.create_connection((host, to), 3).close()  # the host itself reaches both: they listen
    install = install_id(site.settings.state_dir)
    if rules:
        nft(layout.ruleset(install, [], []))
    try:
        for role, host, to in (("gate", gate, port), ("mlflow", mlflow, 5000), ("gate", mlflow, 5000), ("mlflow", gate, port)):
            assert site.inside(role, CONNECT.format(host, to)).returncode != 0, f"{role} reaches {host}:{to}"
        assert site.inside("mlflow", ASK.format(mlflow, 5000)).returncode != 0
    finally:
        if rules:
            nft(f"delete table inet aihub_{install}\n")


def test_mlflow_asks_the_dns_servers_and_nobody_else_at_their_port(site: DockerSite, listen: Callable[..., None]):
    install, gateways = install_id(site.settings.state_dir), {"mlflow": "10.214.3.1", "gate": "10.214.2.1"}
    for gateway in gateways.values():
        listen(sys.executable, to=[gateway, "53"], user=0, group=0)

    def reaches(role: str, how: str) -> bool:
        return site.inside(role, how.format(gateways[role], 53)).returncode == 0

    assert all(reaches(role, how) for role in gateways for how in (CONNECT, ASK))
    try:
        nft(layout.ruleset(install, [], ["192.0.2.53"]))
        assert not any(reaches(role, how) for role in gateways for how in (CONNECT, ASK))
        nft(layout.ruleset(install, [], list(gateways.values())))
        assert all(reaches("mlflow", how) for how in (CONNECT, ASK))
        assert not any(reaches("gate", how) for how in (CONNECT, ASK))
        assert site.inside("mlflow", CONNECT.format(gateways["mlflow"], 5353)).returncode != 0
    finally:
        nft(f"delete table inet aihub_{install}\n")


def test_no_container_has_an_address_of_version_6(site: DockerSite):
    look = "import pathlib; path = pathlib.Path('/proc/net/if_inet6'); print(path.read_text() if path.exists() else '')"
    for role in ("gate", "mlflow"):
        found = site.inside(role, look)
        assert found.returncode == 0, found.stderr
        assert {line.split()[-1] for line in found.stdout.splitlines() if line} <= {"lo"}
        assert site.inside(role, CONNECT.format("fe80::1%eth0", 80)).returncode != 0


def test_a_container_removed_by_hand_comes_back(site: DockerSite):
    for role in ("gate", "mlflow"):
        site.docker.run("rm", "-f", site.containers()[role])
        until(lambda: len(site.containers()) == 2 and site.is_back(), 90)
    assert "first" in site.experiments()


def test_memory_that_runs_out_ends_mlflow_and_not_the_server(site: DockerSite):
    """While a client writes. Its containers go on, and what was answered is there."""
    since, said = site.started_at(), guard_log(site)
    with writers(site, "0", 1) as made:
        before = mlflow_pid(site)
        # The kernel would choose between the two by their size; here it is told.
        run_as_root("tee", f"/proc/{before}/oom_score_adj", text="1000")
        hog = "b = bytearray()\nwhile True: b += b'x' * 50_000_000"
        assert site.inside("mlflow", hog).returncode != 0, "the kernel ended it, too, after MLflow"
        until(lambda: mlflow_pid(site) not in {None, before}, 90)
    assert "MLflow ended with status -9" in guard_log(site).removeprefix(said)
    assert site.started_at() == since
    assert_nothing_answered_is_lost(site, made)
    until(site.is_back, 90)


def mlflow_pid(site: DockerSite) -> int | None:
    """As the host has it; none while none runs."""
    lines = site.docker.run("top", site.containers()["mlflow"], "-o", "pid,args").splitlines()
    return next((int(line.split()[0]) for line in lines if "mlflow_process" in line), None)


def guard_log(site: DockerSite) -> str:
    return site.inside("gate", "print(open('/box/log/guard.log').read(), end='')").stdout


def test_after_a_boot_it_serves_though_the_service_is_down(site: DockerSite):
    """The daemon ends, and with it all containers; when it is back they start by themselves. Requests are answered meanwhile by nobody."""
    before = site.containers()
    site.stop_service()
    try:
        site.daemon("stop")
        assert not site.answers()
        site.daemon("start")
        until(site.answers, 90)
        assert "first" in site.experiments()
    finally:
        site.start_service()
    assert site.containers() == before
    until(site.is_back, 60)


def test_a_daemon_that_is_gone_is_no_server_that_failed(site: DockerSite):
    """While it is down the service goes on, says nothing that is not so, and finds everything again; what was asked meanwhile is done."""
    site.daemon("stop")
    try:
        asked = site.ask("stop")
        until(lambda: any(step["detail"] for step in site.operation(asked).steps), 30)  # it was tried, and waits
        assert site.operation(asked).finished_at is None
    finally:
        site.daemon("start")
    until(lambda: site.operation(asked).finished_at is not None, 120)
    assert site.operation(asked).state == "succeeded", site.operation(asked).error
    assert site.containers() == {}
    site.ask_and_wait(site.ask("start"))
    until(site.is_back, 90)


def test_stopped_it_has_no_container_and_started_it_is_the_same(site: DockerSite):
    site.ask_and_wait(site.ask("stop"))
    assert site.containers() == {}
    site.ask_and_wait(site.ask("start"))
    assert "first" in site.experiments()


@pytest.mark.parametrize(
    ("call", "number", "states"),
    [("create", 2, {"gate": "created", "mlflow": "created"}), ("start", 1, {"mlflow": "running", "gate": "created"})],
    ids=["both made, none started", "one started"],
)
def test_a_service_that_is_killed_between_making_and_starting_leaves_it_to_the_next(
    site: DockerSite, call: str, number: int, states: dict[str, str]
):
    site.ask_and_wait(site.ask("stop"))
    site.stop_service()
    try:
        asked = site.ask("start")
        site.run_and_die(Crash(f"backend.runtimes.docker:Engine.{call}", number, after=True))
        assert {role: found.state for role, found in site.engine.of(site.one().id, fresh=True).items()} == states
    finally:
        site.start_service()
    until(lambda: site.operation(asked).finished_at is not None, 120)
    assert site.operation(asked).state == "succeeded", site.operation(asked).error
    assert "first" in site.experiments()
    assert [found.state for found in site.engine.containers(fresh=True)] == ["running"] * 2
    until(site.is_back, 60)


def test_deleted_and_restored_with_what_was_in_it(site: DockerSite):
    uid = site.one().uid
    site.ask_and_wait(site.ask("delete"))
    assert list(site.boxes.ids()) == []
    site.ask_and_wait(site.ask("restore"))
    assert "first" in site.experiments()
    assert site.one().uid == uid


@contextlib.contextmanager
def container_labelled(site: DockerSite, **labels: str) -> Iterator[str]:
    """The id of a running container that the service did not make, with labels as it gives them."""
    options = [option for name, value in labels.items() for option in ("--label", f"org.aihub.{name}={value}")]
    command = ("--stop-signal", "KILL", "--entrypoint", "sleep", f"aihub-box:{MLFLOW_VERSION}", "600")
    made = site.docker.run("run", "--detach", "--network", "none", *options, *command)
    try:
        yield made
    finally:
        with contextlib.suppress(DockerError):  # it may be removed by then
            site.docker.run("rm", "--force", made)


def test_a_container_of_no_server_is_said_and_removed_only_when_asked_and_one_of_others_never(site: DockerSite):
    ours = {"install": install_id(site.settings.state_dir), "server": "zzzzzzzzzzzz", "role": "gate"}

    def running() -> set[str]:
        return set(site.docker.run("ps", "--quiet", "--no-trunc").split())

    with container_labelled(site, **ours) as lost, container_labelled(site, **ours | {"install": "0123abcd"}) as foreign:
        assert [(each.state, each.detail) for each in checks.orphans(site.settings)] == [("warning", "running zzzzzzzzzzzz")]
        site.stop_service()
        try:
            for _ in range(3):
                site.reconciler().reconcile_all()
            site.runtime.tidy()
            assert {lost, foreign} <= running()
        finally:
            site.start_service()
        checks.clear_orphans(site.settings, checks.look_for_orphans(site.settings), ADMIN)
        assert {lost, foreign} & running() == {foreign}
        assert [each.state for each in checks.orphans(site.settings)] == ["ok"]
    until(site.is_back, 60)


def test_with_live_restore_the_servers_answer_while_the_daemon_is_away(site: DockerSite):
    """As `docs/howto/docker.md` sets the daemon up: killed, started again, ended in order, and started again. One of MLflow's containers
    that ends meanwhile is the exception: nobody starts it before the daemon is back.
    """
    options = ("--live-restore", "--userland-proxy=false")
    site.daemon("stop")
    site.daemon("start", *options)
    try:
        until(site.is_back, 120)
        since = site.started_at()
        for end in ("kill", "stop"):
            site.daemon(end)
            assert site.answers()
            assert "first" in site.experiments(), "by a new connection"
            assert site.one().status in {"running", "sleeping"}
            site.daemon("start", *options)
            assert "first" in site.experiments()
        assert site.started_at() == since, "the containers never ended"
        site.daemon("stop")
        run_as_root("kill", "-KILL", str(since["mlflow"][1]))
        site.daemon("start", *options)
        until(lambda: site.started_at()["mlflow"] != since["mlflow"] and site.is_back(), 120)
        assert "first" in site.experiments()
        assert site.started_at()["gate"] == since["gate"]
    finally:
        site.daemon("stop")
        site.daemon("start")
    until(site.is_back, 120)
