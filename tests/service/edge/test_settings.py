"""The settings' file: every mistake is named by line with its cure, and the documentation is the table."""

from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

from backend.registry.models import now
from backend.settings import Settings, SettingsError, settings_file
from backend.settings_file import load
from backend.settings_table import in_force, markdown_table, rows

ROOT = Path(__file__).parents[3]


def write(folder: Path, text: str) -> Path:
    file = folder / "settings.yml"
    file.write_text(text)
    return file


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(write(folder, text))
    return [problem.removeprefix(f"{folder}/settings.yml ") for problem in caught.value.problems]


def test_defaults_follow_the_state(tmp_path: Path) -> None:
    settings = load(write(tmp_path, f"state_dir: {tmp_path}/state\nidle_seconds: 5\nallowed_groups: [g*, h]\n"))
    assert settings.socket == tmp_path / "state/run/service.sock"
    assert settings.database_url == f"sqlite:///{tmp_path}/state/registry.db"
    assert (settings.idle_seconds, settings.allowed_groups) == (5, ("g*", "h"))
    assert settings.inside_host
    assert not settings.endpoint_url_fixed


@pytest.mark.parametrize(
    ("written", "in_force"),
    [
        ("HTTPS://Portal.Example.org", "https://portal.example.org"),
        ("https://portal.example.org:443", "https://portal.example.org"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://Portal.example.org:8443/Pun/x", "https://portal.example.org:8443/Pun/x"),
        ("http://portal.example.org:443/", "http://portal.example.org:443/"),
    ],
)
def test_portal_and_console_are_named_as_browsers_name_them(tmp_path: Path, written: str, in_force: str) -> None:
    settings = load(write(tmp_path, f"portal_url: '{written}'\nconsole_url: '{written}'\n"))
    assert (settings.portal_url, settings.console_url) == (in_force, in_force)


def test_the_servers_host_is_named_as_clients_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(write(tmp_path, "inside_host: MLFlow01.Example.org\n")).inside_host == "mlflow01.example.org"
    monkeypatch.setattr("socket.gethostname", lambda: "HPC-ML1")
    assert load(write(tmp_path, "region: a\n")).inside_host == "hpc-ml1"


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, "# nothing\n")) == Settings()


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIHUB_SETTINGS", str(write(tmp_path, "region: r1\n")))
    assert load().region == "r1"
    monkeypatch.delenv("AIHUB_SETTINGS")
    assert settings_file() == Path("/etc/aihub/settings.yml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("region: a\nport_frist: 3\n", "line 2: port_frist is not a setting; did you mean port_first?"),
        ("xyzzy: 3\n", "line 1: xyzzy is not a setting; `aihub settings` lists all"),
        ("workers: 0\n", "line 1: workers is 0, which is too small; the least is 1"),
        ("idle_seconds: -1\n", "line 1: idle_seconds is -1, which is too small; the least is 0"),
        ("token_listen: here\n", "line 1: token_listen is 'here'; write ADDRESS:PORT, such as 127.0.0.1:8441"),
        ("token_listen: 127.0.0.1:²\n", "line 1: token_listen is '127.0.0.1:²'; write ADDRESS:PORT, such as 127.0.0.1:8441"),
        ("workers: yes\n", "line 1: workers is True; write a whole number"),
        ("workers: 2.5\n", "line 1: workers is 2.5; write a whole number"),
        ("workers: null\n", "line 1: workers is null; give it a value or leave the line out"),
        ("port_last: 70000\n", "line 1: port_last is 70000, which is too large; the most is 65535"),
        ("stop_timeout: .inf\n", "line 1: stop_timeout is inf; write a number"),
        ("observe_seconds: .nan\n", "line 1: observe_seconds is nan; write a number"),
        ("create_by: all\n", "line 1: create_by is 'all'; choose one of members, admins"),
        ("state_dir: /a%20b\n", "line 1: state_dir is /a%20b; choose one without %, which databases' addresses cannot hold"),
        ("state_dir: here\n", "line 1: state_dir is the relative path here; write an absolute one, which begins with /"),
        ("region: 7\n", "line 1: region is 7; write text (in quotes if it looks like a number)"),
        ("allowed_groups: g*\n", "line 1: allowed_groups is 'g*'; write a list, e.g. [one, two]"),
        ("allow_unisolated: 'true'\n", "line 1: allow_unisolated is 'true'; write true or false"),
        ("allowed_groups: []\n", "line 1: allowed_groups is empty, so nobody could have a server; write '*' for all groups"),
        ("inside_host: h:1\n", "line 1: inside_host is 'h:1'; write a host name or address without port"),
        ("prefix_root: a//b\n", "line 1: prefix_root is 'a//b'; use letters, digits, . _ - and single slashes inside"),
        ("port_first: 25000\nport_last: 24000\n", "line 2: port_last is below port_first (25000); make it larger"),
        (
            "docker_host: tcp://127.0.0.1:2375\n",
            (
                "line 1: docker_host is 'tcp://127.0.0.1:2375'; write unix:///PATH, its socket: whoever reaches the daemon at an"
                " address is root"
            ),
        ),
        ("region: a\nregion: b\n", "line 2: region is already on line 1; keep one of them"),
        ("- a\n", "line 1: the file must consist of `name: value` lines; write it so"),
    ],
)
def test_a_mistake_is_named_with_its_cure(tmp_path: Path, text: str, said: str) -> None:
    assert problems(tmp_path, text) == [said]


@pytest.mark.parametrize("url", ["ftp://x", "https://", "https://u@h", "https://h?q", "https://h:99999", "no"])
def test_only_plain_addresses(tmp_path: Path, url: str) -> None:
    (found,) = problems(tmp_path, f"endpoint_url: '{url}'\n")
    assert "write http://HOST or https://HOST" in found


@pytest.mark.parametrize("name", [row.name for row in fields(Settings) if row.name.endswith(("_days", "_hours"))])
def test_the_longest_time_that_can_be_set_can_be_counted_with(tmp_path: Path, name: str) -> None:
    most = next(row.metadata["most"] for row in fields(Settings) if row.name == name)
    span = timedelta(**{name.rpartition("_")[2]: getattr(load(write(tmp_path, f"{name}: {most}\n")), name)})
    assert now() - span < now() < now() + span
    (found,) = problems(tmp_path, f"{name}: {10**8}\n")
    assert found.endswith(f"which is too large; the most is {most}")


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "workers: 0\nthreads: 0\nnothing: 1\n")) == 3


def test_ports_outside_of_the_ephemeral_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    range_file = tmp_path / "range"
    range_file.write_text("25000\t26000\n")
    monkeypatch.setattr("backend.settings_file.EPHEMERAL_PORTS", range_file)
    (found,) = problems(tmp_path, "region: a\n")
    assert "port_first to port_last (21000-29999) overlaps the kernel's ephemeral ports 25000-26000" in found
    assert load(write(tmp_path, "port_first: 26001\nport_last: 27000\n")).port_first == 26001


def test_what_is_no_yaml_or_cannot_be_read(tmp_path: Path) -> None:
    assert "line 2: not valid YAML" in problems(tmp_path, "region: a\nworkers: : 1\n")[0]
    with pytest.raises(SettingsError, match="there is no such file; write it, or name another one in AIHUB_SETTINGS"):
        load(tmp_path / "none.yml")
    (tmp_path / "settings.yml").write_bytes(b"region: \xff\n")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "settings.yml")


def test_the_documentation_is_the_table() -> None:
    assert markdown_table() in (ROOT / "docs/reference/settings.md").read_text()
    assert [name for name, *_ in rows()] == [row.name for row in fields(Settings)]
    assert all(about.endswith(".") for *_, about in rows())


def test_no_password_is_shown() -> None:
    password = "hidden-word"
    settings = Settings(database_url=f"postgresql://aihub:{password}@db/aihub")
    assert password not in repr(settings)
    assert in_force(settings)["database_url"] == "postgresql://aihub:…@db/aihub"
