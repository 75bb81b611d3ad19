"""What an admin installs is accepted by the programs that read it, and the pages' commands are ones that there are."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlwf.wire.connection import connection
from mlwf.wire.munge import MungeAuth
from mlwf.wire.token_auth import TokenAuth

from backend.settings import Settings
from backend.settings_file import load

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted([*(DEPLOY / "systemd").glob("*.service"), *(DEPLOY / "systemd").glob("*.timer")])
PAGES = [ROOT / "docs" / name for name in ("install/service.md", "install/console.md", "howto/docker.md")]
WORST_EXPOSURE = {"aihub-web.service": 1.5, "aihub-reconciler.service": 3.5}
WORST_EXPOSURE |= dict.fromkeys(("aihub-firewall.service", "aihub-firewall-names.service", "aihub-ports.service"), 4.0)
"""Of `systemd-analyze security`, 0 (nothing) to 10 (all)."""
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")


def blocks(page: Path, language: str) -> list[str]:
    """The page's fenced blocks of that language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def installed(unit: Path, folder: Path) -> Path:
    """The unit with programs that are here, so that systemd finds them."""
    copy = folder / unit.name
    copy.write_text(unit.read_text().replace("/opt/aihub/venv/bin/", f"{Path(sys.executable).parent}/"))
    return copy


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_systemd_reads_the_unit(unit: Path, tmp_path: Path) -> None:
    for each in UNITS:
        installed(each, tmp_path)
    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit.name)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"})
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, said) == (0, []), done.stderr


@needs_systemd
@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.name in WORST_EXPOSURE], ids=lambda unit: str(unit.name))
def test_the_unit_leaves_little_open(unit: Path, tmp_path: Path) -> None:
    worst = str(int(WORST_EXPOSURE[unit.name] * 10))
    argv = ["systemd-analyze", "security", "--offline=yes", f"--threshold={worst}", "--no-pager", str(installed(unit, tmp_path))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_the_units_commands_are_ones_that_there_are(unit: Path) -> None:
    for line in re.findall(r"^Exec\w+=/opt/aihub/venv/bin/aihub (.*)$", unit.read_text(), re.MULTILINE):
        words = line.split()
        assert {word for word in words if word.startswith("--")} <= _options(words[:1]), line


def test_what_answers_requests_writes_in_no_folder_that_roots_daemon_mounts() -> None:
    settings = Settings(state_dir=Path("/var/lib/aihub"))
    line = re.search(r"^ReadOnlyPaths=(.*)$", (DEPLOY / "systemd" / "aihub-web.service").read_text(), re.MULTILINE)
    assert line
    assert line[1].split() == [f"-{folder}" for folder in (settings.servers_dir, *settings.copies_dirs)]


def test_only_the_reconciler_may_use_docker() -> None:
    web, reconciler = ((DEPLOY / "systemd" / f"aihub-{name}.service").read_text() for name in ("web", "reconciler"))
    assert "SupplementaryGroups" not in web
    assert "InaccessiblePaths=-/run/docker.sock -/run/containerd " in web
    assert "SupplementaryGroups" not in reconciler
    assert "SupplementaryGroups=docker\n" in (DEPLOY / "systemd" / "docker.conf").read_text()
    assert "-/run/aihub-podman.sock" in web
    assert "SocketGroup=aihub-reconciler\n" in (DEPLOY / "systemd" / "podman-socket.conf").read_text()
    groups = [re.search(r"^Group=(.*)$", unit, re.MULTILINE) for unit in (web, reconciler)]
    assert all(groups)
    assert len({group[1] for group in groups if group}) == 2


def test_no_container_swaps_after_systemd_read_its_files_anew() -> None:
    """runc (1.1.5, control groups of version 2) tells systemd of every limit but this one when it is 0."""
    assert (DEPLOY / "systemd" / "docker-scope.conf").read_text().endswith("[Scope]\nMemorySwapMax=0\n")
    page = (ROOT / "docs/howto/docker.md").read_text()
    assert page.index("docker-scope.conf /etc/systemd/system/docker-.scope.d/") < page.index("\nsystemctl daemon-reload\n")


@needs_systemd
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make accounts, even in a folder")
def test_the_accounts_and_folders_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for program, name in (("systemd-sysusers", "aihub.sysusers"), ("systemd-tmpfiles", "aihub.tmpfiles")):
        options = ["--create"] if program == "systemd-tmpfiles" else []
        subprocess.run([program, f"--root={tmp_path}", *options, str(DEPLOY / "systemd" / name)], check=True, capture_output=True)
    assert re.search(r"^aihub:.*:/var/lib/aihub:/usr/sbin/nologin$", (tmp_path / "etc/passwd").read_text(), re.MULTILINE)
    groups = (tmp_path / "etc/group").read_text()
    assert all(re.search(rf"^{name}:", groups, re.MULTILINE) for name in ("aihub", "aihub-reconciler", "aihub-admins"))
    assert (tmp_path / "etc/aihub/tls").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "var/lib/aihub").stat().st_mode & 0o777 == 0o700


def test_neither_unit_gives_the_servers_folders_to_its_own_group() -> None:
    """As systemd does, to the last file, with a StateDirectory= of another owner: each start of the one would take it from the other."""
    for unit in (DEPLOY / "systemd" / "aihub-web.service", DEPLOY / "systemd" / "aihub-reconciler.service"):
        assert not re.search(r"^StateDirectory=", unit.read_text(), re.MULTILINE)
        assert "\nReadWritePaths=/var/lib/aihub\n" in unit.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_the_pages_commands_are_ones_that_there_are(page: Path) -> None:
    """Each `aihub …` line is asked for its help, and each file of ours that a line names is there."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        for word in words:
            ours = re.match(r"^(deploy|tracking_server|ood_app|bin|mlwf)/[\w./-]+$", word)
            assert not ours or words[0] == "rm" or "/tmp" in word or (ROOT / word.rstrip("/")).exists(), line
        program = next((index for index, word in enumerate(words) if word in {"aihub", "/opt/aihub/venv/bin/aihub"}), None)
        if program is None or words[0] in {"install", "nft"}:  # an account and a table have that name
            continue
        command = [word for word in words[program + 1 :] if re.fullmatch(r"[a-z]+", word)][:2]
        options = {word.split("=")[0] for word in words[program + 1 :] if word.startswith("--")}
        assert options <= _options(command), line


def _options(command: list[str]) -> set[str]:
    from click.testing import CliRunner

    from backend.cli.main import aihub

    for length in (2, 1):
        shown = CliRunner().invoke(aihub, [*command[:length], "--help"])
        if shown.exit_code == 0:
            return set(re.findall(r"--[a-z-]+", shown.output))
    raise AssertionError(f"there is no aihub {' '.join(command)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_the_pages_settings_can_be_used(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "yaml"):
        content = yaml.safe_load(block)
        if "inside_host" in content:
            file = tmp_path / "settings.yml"
            file.write_text(block)
            assert load(file).inside_host == content["inside_host"]


@pytest.mark.parametrize("page", ["install/service.md", "reference/mlwf.md"])
def test_both_ways_to_the_service_are_shown_each_with_its_own_address(page: str, tmp_path: Path) -> None:
    """A token at MUNGE's address is refused as if there were no proof at all, so the pages must not show one address alone."""
    shown = {}
    for block in blocks(ROOT / "docs" / page, "yaml"):
        content = yaml.safe_load(block)
        if "service" in content:
            file = tmp_path / "mlwf.yml"
            file.write_text(block.replace("/etc/aihub/ca.pem", str(file)).replace("~/", f"{tmp_path}/"))
            token = tmp_path / ".config" / "mlwf" / "token"
            token.parent.mkdir(parents=True, exist_ok=True)
            token.write_text("aihub_0123456789ab_secret\n")
            token.chmod(0o600)
            reached = connection({"HOME": "/nowhere"}, site_file=file)
            shown[type(reached.auth)] = reached.address
    assert shown == {MungeAuth: _behind("munge_listen"), TokenAuth: _behind("token_listen")}


def _behind(listener: str) -> str:
    """The address of the TLS nginx's server that hands on to this listener of the page's settings."""
    (settings,) = (text for block in blocks(PAGES[0], "yaml") if "inside_host" in (text := yaml.safe_load(block)))
    servers = (DEPLOY / "nginx" / "aihub.conf").read_text().split("\nserver {")[1:]
    (server,) = (text for text in servers if f"proxy_pass http://{settings[listener]};" in text)
    port, name = re.search(r"listen (\d+) ssl;", server), re.search(r"server_name (\S+);", server)
    assert port
    assert name
    return f"https://{name[1]}:{port[1]}"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="only root's nft can try rules")
def test_the_firewalls_rules_are_some() -> None:
    done = subprocess.run(["nft", "-c", "-f", str(DEPLOY / "nftables" / "aihub.nft")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
