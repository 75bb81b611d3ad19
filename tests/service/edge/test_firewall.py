"""`aihub firewall` in a network namespace of its own: the kernel's answer to the rules, and what is in force after each run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.networks import firewall, layout
from backend.networks.layout import bridge_names, install_id
from tests.service.edge.live import AIHUB

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or None in map(shutil.which, ("nft", "ip")), reason="network namespaces and nft are root's"
)
HERE = "192.0.2.7:5432"
NOWHERE = "nowhere.invalid:443"
"""Nothing is reached from the namespace: no name has an address."""
_READ = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
NO_ROOT = ("setpriv", "--reuid=65534", "--clear-groups", *_READ)
"""An account that reads this interpreter, wherever it is."""
GATES, MLFLOWS = "10.214.2", "10.214.3"
"""What the addresses of each network begin with."""
BY_PORTS = "net/bridge/bridge-nf-call-iptables"
"""Whether the rules for what is routed see what stays on one bridge, too."""
LISTEN = """
import socket, sys
listener = socket.create_server(("::", 5000), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
sys.stdin.read()
"""
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 5000), 2)"
NO_RIGHT = ("setpriv", "--bounding-set=-net_admin")


class Host:
    def __init__(self, folder: Path) -> None:
        self._settings = folder / "settings.yml"
        self._folder = folder
        self._name = f"aihub{os.getpid()}firewall"
        self._etc = Path("/etc/netns") / self._name
        self.install = install_id(folder / "state")

    def run(self, *argv: str, box: str = "") -> subprocess.CompletedProcess[str]:
        surroundings = {"PATH": f"{os.environ['PATH']}:/usr/sbin", "LANG": "C.UTF-8"}
        return subprocess.run([*self.entered(box), *argv], env=surroundings, capture_output=True, text=True, check=False, timeout=60)

    def entered(self, box: str = "") -> list[str]:
        """What runs a command there, or in a box on it."""
        return ["ip", "netns", "exec", self._name + box]

    def firewall(self, *argv: str, egress: list[str], by: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        networks = f"gate_network: {GATES}.0/24\nmlflow_network: {MLFLOWS}.0/24\n"
        self._settings.write_text(f"runtime: docker\nstate_dir: {self._folder / 'state'}\negress: {egress}\n{networks}")
        return self.run(*by, AIHUB, "--settings", str(self._settings), "firewall", *argv)

    def in_force(self, family: str = "inet") -> str:
        """The table, as nft lists it; empty where there is none."""
        return self.run("nft", "list", "table", family, f"aihub_{self.install}").stdout

    def hosts(self, text: str) -> None:
        """Its /etc/hosts: in place of a DNS server."""
        self._etc.mkdir(parents=True, exist_ok=True)
        (self._etc / "hosts").write_text(text)

    def check(self, by: tuple[str, ...] = ()) -> str:
        """What `aihub check` finds of the firewall."""
        code = "import sys; from backend import settings_file; from backend.checks import containers; from pathlib import Path\n"
        code += "print(*(found.state for found in containers.firewall(settings_file.load(Path(sys.argv[1])))))"
        return self.run(*by, sys.executable, "-c", code, str(self._settings)).stdout.strip()

    def plug(self, bridge: str, box: str, network: str, number: int) -> None:
        """A box on the bridge, as a container is. Its port has a name that nobody chose."""
        made, there = f"port{number}", ["ip", "-n", self._name + box]
        _do("ip", "netns", "add", self._name + box)
        _do(*self.entered(), "ip", "link", "add", made, "master", bridge, "up", "type", "veth", "peer", "eth0", "netns", self._name + box)
        _do(*there, "link", "set", "lo", "up")
        _do(*there, "link", "set", "eth0", "up")
        _do(*there, "address", "add", f"{network}.{number}/24", "dev", "eth0")
        _do(*there, "address", "add", f"fd00::{number}/64", "dev", "eth0", "nodad")

    def unplug(self, box: str) -> None:
        subprocess.run(["ip", "netns", "del", self._name + box], check=False)

    def reaches(self, address: str, box: str = "") -> bool:
        """Whether that box, or the host, connects there."""
        return self.run(sys.executable, "-I", "-c", CONNECT, address, box=box).returncode == 0

    def make(self) -> None:
        subprocess.run(["ip", "netns", "add", self._name], check=True)

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self._name], check=False)
        shutil.rmtree(self._etc, ignore_errors=True)


def _do(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="aihub-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        made = Host(Path(folder))
        made.make()
        try:
            yield made
        finally:
            made.remove()


def test_an_entry_that_another_contains_opens_no_less(host: Host) -> None:
    """nft refuses a set whose entries overlap: no rules, and Docker would not start."""
    egress = ["10.9.0.0/16:443", "10.9.1.5:443", "10.9.1.5:80", "0.0.0.0/0:8443", "10.9.0.0/16:8443"]
    done = host.firewall("--apply", egress=egress)
    assert done.returncode == 0, done.stderr
    allowed = host.in_force()
    assert all(one in allowed for one in ("10.9.0.0/16 . 443", "10.9.1.5 . 80", "0.0.0.0/0 . 8443"))


def test_an_nft_that_is_killed_says_no_word_and_is_no_crash(host: Host, tmp_path: Path) -> None:
    killed = tmp_path / "nft"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    done = host.firewall("--apply", egress=[HERE], by=("env", f"PATH={tmp_path}:{os.environ['PATH']}"))
    assert done.returncode == 1
    assert "nothing was changed (exit status -9)" in done.stderr
    assert host.in_force() == ""


def test_a_kernel_without_rules_for_bridges_has_the_others(host: Host, tmp_path: Path) -> None:
    refuse = '#!/bin/sh\nrules=$(cat)\ncase "$rules $*" in *bridge*) echo "Operation not supported" >&2; exit 1;; esac\n'
    (tmp_path / "nft").write_text(
        f'{refuse}[ "$rules" ] || exec {shutil.which("nft")} "$@"\nprintf %s "$rules" | {shutil.which("nft")} "$@"\n'
    )
    (tmp_path / "nft").chmod(0o755)
    by = ("env", f"PATH={tmp_path}:{os.environ['PATH']}")
    for option in ("--apply", "--ensure"):
        done = host.firewall(option, egress=[HERE], by=by)
        assert (done.returncode, "192.0.2.7 . 5432" in host.in_force()) == (0, True), done.stderr
        assert "a bridge (Operation not supported), so servers' containers are kept apart only if" in done.stderr
    assert host.firewall("--remove", egress=[HERE], by=by).returncode == 0
    assert host.in_force() == ""


def test_an_nft_that_never_answers_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nft").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    (tmp_path / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(firewall, "_LONGEST", 0.1)
    with pytest.raises(firewall.FirewallError, match="no answer"):
        firewall.is_in_force("inet aihub_01234567")


@pytest.mark.parametrize("option", ["--apply", "--ensure"])
def test_where_no_rules_are_in_force_a_name_without_an_address_is_closed(host: Host, option: str) -> None:
    done = host.firewall(option, egress=[HERE, NOWHERE])
    assert done.returncode == 0, done.stderr
    assert "nowhere.invalid has no address now" in done.stderr
    assert "closed to the containers" in done.stderr
    assert "192.0.2.7 . 5432" in host.in_force()


def test_what_docker_requires_is_well_with_the_rules_that_are_in_force(host: Host) -> None:
    """Docker's restart ends Docker first: where this failed then, it would stay away. The timer's run fails, so that systemd shows it."""
    assert host.firewall("--ensure", egress=[HERE]).returncode == 0
    rules = host.in_force()
    assert "192.0.2.7 . 5432" in rules
    apply = host.firewall("--apply", egress=["192.0.2.8:5432", NOWHERE])
    ensure = host.firewall("--ensure", egress=["192.0.2.8:5432", NOWHERE])
    assert (apply.returncode, ensure.returncode) == (1, 0)
    assert all("nowhere.invalid has no address now" in done.stderr for done in (apply, ensure))
    assert "the rules in force stay" in ensure.stderr
    assert host.in_force() == rules
    assert host.firewall("--ensure", egress=["192.0.2.8:5432"]).returncode == 0
    assert "192.0.2.8 . 5432" in host.in_force()


def test_what_was_flushed_is_back_with_dockers_next_start(host: Host) -> None:
    """Debian's /etc/nftables.conf begins with it."""
    assert host.firewall("--ensure", egress=[HERE]).returncode == 0
    host.run("nft", "flush", "ruleset")
    assert host.in_force() == ""
    assert host.firewall("--ensure", egress=[HERE]).returncode == 0
    assert "192.0.2.7 . 5432" in host.in_force()


def test_an_address_that_a_name_had_stays_open_for_some_hours(host: Host) -> None:
    """MLflow asks DNS itself, and not at the same moment as the timer."""
    name = f"s3.{'long-' * 40}name.example.org:443".replace("long-" * 12, "long.", 3)  # longer than nft's comments
    host.hosts(f"192.0.2.10 {name[:-4]}\n192.0.2.20 other.example.org\n")
    assert host.firewall("--ensure", egress=[name, "other.example.org:443", HERE]).returncode == 0
    host.hosts(f"192.0.2.11 {name[:-4]}\n")
    done = host.firewall("--apply", egress=[name, HERE])
    assert done.returncode == 0, done.stderr
    rules = host.in_force()
    egress, answers = (rules.partition(f"set {name} {{")[2].partition("}\n\n")[0] for name in ("egress", "answers"))
    assert "192.0.2.11 . 443" in egress
    assert "192.0.2.10" not in egress
    assert dict(re.findall(r"(192\.0\.2\.\d+) \. 443 timeout (\dh)", answers)) == {"192.0.2.10": "5h", "192.0.2.11": "6h"}
    assert "192.0.2.20" not in rules, "its entry is no more"


def test_check_says_whether_the_rules_are_in_force(host: Host) -> None:
    assert host.firewall(egress=[HERE]).returncode == 0
    assert host.check() == "failure"
    assert host.firewall("--apply", egress=[HERE]).returncode == 0
    assert host.check() == "ok"
    assert host.check(by=NO_ROOT) == "warning"
    for family in ("bridge", "inet"):
        host.run("nft", "delete", "table", family, f"aihub_{host.install}")
        assert host.check() == "failure", f"one of the two is missing: {family}"
        assert host.firewall("--apply", egress=[HERE]).returncode == 0
        assert host.check() == "ok"
    assert host.firewall("--remove", egress=[HERE]).returncode == 0
    assert host.run("nft", "list", "ruleset").stdout == ""


@pytest.mark.parametrize(("option", "status"), [("--apply", 1), ("--ensure", 0)])
def test_rules_of_an_earlier_version_get_the_bridges_though_a_name_has_no_address(host: Host, option: str, status: int) -> None:
    """What names led to stays open."""
    assert host.firewall("--apply", egress=[HERE]).returncode == 0
    rules = host.in_force()
    host.run("nft", "delete", "table", "bridge", f"aihub_{host.install}")
    assert host.firewall(option, egress=[NOWHERE]).returncode == status
    assert host.in_force() == rules
    assert "drop" in host.in_force("bridge")


@pytest.fixture
def boxes(host: Host) -> Iterator[Callable[[str], None]]:
    """Two on each of the networks; all listen. With a number the host's rules see what stays on one bridge, or do not."""
    with contextlib.ExitStack() as stack:
        for bridge, network in zip(bridge_names(host.install), (GATES, MLFLOWS), strict=True):
            _do(*host.entered(), "ip", "link", "add", bridge, "up", "type", "bridge")
            _do(*host.entered(), "ip", "address", "add", f"{network}.1/24", "dev", bridge)
            for number in (2, 3):
                box = f"-{network[-1]}-{number}"
                stack.callback(host.unplug, box)
                host.plug(bridge, box, network, int(network[-1]) * 10 + number)
                argv = [*host.entered(box), sys.executable, "-I", "-c", LISTEN]
                listener = stack.enter_context(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
                stack.callback(listener.kill)
                assert listener.stdout is not None
                assert listener.stdout.readline() == "ready\n"

        def see(number: str) -> None:
            known = host.run("test", "-e", f"/proc/sys/{BY_PORTS}").returncode == 0
            if not known and number == "1":
                pytest.skip("this kernel has no br_netfilter now")
            if known:
                _do(*host.entered(), "sysctl", "-qw", f"{BY_PORTS.replace('/', '.')}={number}")

        yield see


@pytest.mark.parametrize("number", ["0", "1"])
def test_boxes_on_one_bridge_are_apart_whatever_the_host_says_of_bridges(host: Host, boxes: Callable[[str], None], number: str) -> None:
    """Podman does not turn it on, and a host's own sysctl may turn off what Docker turned on."""
    boxes(number)
    pairs = (("-2-2", f"{GATES}.23"), ("-2-3", f"{GATES}.22"), ("-3-2", f"{MLFLOWS}.33"), ("-3-3", f"{MLFLOWS}.32"))
    assert all(host.reaches(address, box) for box, address in pairs), "without rules"
    done = host.firewall("--apply", egress=[HERE])
    assert done.returncode == 0, done.stderr
    assert [pair for pair in pairs if host.reaches(pair[1], pair[0])] == []
    assert all(host.reaches(address) for _box, address in pairs), "the host itself reaches them"
    assert host.firewall("--remove", egress=[HERE]).returncode == 0
    assert all(host.reaches(address, box) for box, address in pairs), "it was the rules"


def test_boxes_on_one_bridge_are_apart_by_version_6_where_the_kernel_tells_bridges(host: Host, boxes: Callable[[str], None]) -> None:
    """Podman's containers have an address of their own making."""
    if not firewall.tells_bridges():
        pytest.skip("this kernel has no nft_meta_bridge")
    boxes("0")
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-ip6tables=0")
    assert host.reaches("fd00::23", "-2-2")
    assert host.firewall("--apply", egress=[HERE]).returncode == 0
    assert not host.reaches("fd00::23", "-2-2")


def test_on_a_kernel_that_tells_bridges_no_address_counts() -> None:
    """Else those of version 6 would go through."""
    rules = layout.bridge_ruleset("01234567")
    assert 'meta ibrname { "ahg01234567", "ahm01234567" } drop' in rules
    assert "daddr" not in rules


@pytest.mark.parametrize(("by", "cure"), [(NO_ROOT, "run it as root"), (NO_RIGHT, "`aihub firewall` shows them")])
def test_rules_that_are_refused_have_their_cure(host: Host, by: tuple[str, ...], cure: str) -> None:
    """Root is told no more to be root."""
    done = host.firewall("--apply", egress=[HERE], by=by)
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr
    assert cure in done.stderr
    assert host.in_force() == ""
