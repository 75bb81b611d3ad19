"""basic_auth.yml and ~/.aws/credentials."""

import errno
import os
import stat
from pathlib import Path

import pytest
import yaml
from mlwf.auth_file import AuthFileError, generate_auth_file, open_to_all, read_auth_file
from mlwf.aws_profiles import ProfileError, key_pair, profile_names

SECRET = "Zx9-a-password"
OTHER_GROUP = 54321 if os.geteuid() == 0 else next((gid for gid in os.getgroups() if gid != os.getegid()), None)


def _write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "users"),
    [
        ("{'user_name': 'alice', 'pass': 'p w'}", [("alice", "p w")]),
        ("user_name: 'alice'\npass: 'päß'\n", [("alice", "päß")]),
        ("- {user_name: a, pass: b}\n- {'user_name': 'c', 'pass': '123'}\n", [("a", "b"), ("c", "123")]),
        ("\ufeff{user_name: a, pass: b}", [("a", "b")]),
        ("{user_name: '山田\u3000太郎👨\u200d👩', pass: 'パ\u3000ス'}", [("山田\u3000太郎👨\u200d👩", "パ\u3000ス")]),
    ],
)
def test_the_forms_of_the_file(tmp_path: Path, text: str, users: list[tuple[str, str]]) -> None:
    found = read_auth_file(_write(tmp_path / "basic_auth.yml", text))
    assert [(user.user_name, user.password.reveal()) for user in found] == users


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("[]", "the list is empty"),
        (f"{{user_name: a, pass: *{SECRET}}}", "basic_auth.yml:1 cannot be used: this is not YAML"),
        (f"user_name: a\npass: '{SECRET}\n", "this is not YAML"),
        ("user_name: a\n", ":1 cannot be used: pass is missing"),
        ("- {user_name: a, pass: x}\n- {user_name: b, pass: 0123}\n", ":2 cannot be used: pass must be text in quotes"),
        ("- {user_name: a, pass: x}\n-\n- {user_name: a, pass: y}\n", ":2 cannot be used: an entry"),
        ("- {user_name: a, pass: x}\n- {user_name: a, pass: y}\n", ":2 cannot be used: the user a is listed twice"),
        (f"{{user_name: a, password: {SECRET}}}", "only the keys user_name and pass are known"),
        ("{user_name: a, user_name: b, pass: c}", "user_name is there twice"),
        ("{user_name: 'a:b', pass: c}", "neither a colon"),
        ("{user_name: a, pass: ''}", "not empty"),
        ("{user_name: a, pass: {b: c}}", "must be text"),
        (f"!!python/object/apply:os.system ['{SECRET}']", "an entry"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("[" * 5000, "this is not YAML"),
        ("#" * 70_000, "larger than 65536 bytes"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_without_its_content(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(AuthFileError) as caught:
        read_auth_file(_write(tmp_path / "basic_auth.yml", text))
    assert words in str(caught.value)
    assert SECRET not in repr(caught.value) + str(caught.value)
    assert caught.value.__cause__ is None
    assert not caught.value.missing


def test_no_file_a_folder_a_pipe(tmp_path: Path) -> None:
    with pytest.raises(AuthFileError, match="--generate") as caught:
        read_auth_file(tmp_path / "none.yml")
    assert caught.value.missing
    os.mkfifo(tmp_path / "pipe")
    for name in ("", "pipe"):
        with pytest.raises(AuthFileError, match="not a regular file"):
            read_auth_file(tmp_path / name)


@pytest.mark.parametrize(("above", "expected"), [(0o700, 0o750), (0o2775, 0o2770), (0o2750, 0o2750), (0o1777, 0o750)])
def test_a_generated_file_is_the_groups_and_nobody_elses(tmp_path: Path, above: int, expected: int) -> None:
    group = tmp_path / "group"
    group.mkdir()
    group.chmod(above)
    file = group / "aihub" / "wine" / "yml" / "basic_auth.yml"
    old = os.umask(0)
    try:
        user = generate_auth_file(file, "alice's")
    finally:
        os.umask(old)
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in file.parents[:3]} == {expected}
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert not open_to_all(file)
    assert read_auth_file(file) == [user]
    assert yaml.safe_load(file.read_text())["user_name"] == "alice's"
    assert len(user.password.reveal()) >= 32
    with pytest.raises(FileExistsError):
        generate_auth_file(file, "bob")
    assert read_auth_file(file) == [user]
    assert [path.name for path in file.parent.iterdir()] == ["basic_auth.yml"]


@pytest.mark.skipif(OTHER_GROUP is None, reason="this user is in one group only")
@pytest.mark.parametrize("above", [0o700, 0o2775])
def test_a_generated_file_is_the_servers_groups_whatever_its_makers_first_group(tmp_path: Path, above: int) -> None:
    group = tmp_path / "group"
    group.mkdir()
    group.chmod(above)
    file = group / "aihub" / "wine" / "yml" / "basic_auth.yml"
    generate_auth_file(file, "alice", OTHER_GROUP)
    assert {path.stat().st_gid for path in (file, *file.parents[:3])} == {OTHER_GROUP}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in file.parents[:3]} == {0o2770 if above & stat.S_ISGID else 0o750}
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert group.stat().st_gid == tmp_path.stat().st_gid


def test_where_the_file_cannot_be_the_groups_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_args: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", refused)
    area = tmp_path / "area"
    area.mkdir()
    for path in (area / "aihub" / "basic_auth.yml", area / "basic_auth.yml"):
        with pytest.raises(AuthFileError, match="Operation not permitted"):
            generate_auth_file(path, "alice", 54321)
        assert list(area.iterdir()) == []


def test_two_servers_of_a_group_get_their_first_files_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else makes the folder that both need, in the moment in which it is made here."""
    others = tmp_path / "aihub" / "two" / "yml" / "basic_auth.yml"
    mkdir = os.mkdir

    def late(path: str, mode: int = 0o777) -> None:
        if not others.exists():
            monkeypatch.undo()
            generate_auth_file(others, "bob")
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", late)
    for name in ("one", "three"):
        generate_auth_file(tmp_path / "aihub" / name / "yml" / "basic_auth.yml", "alice")
    assert sorted(str(each.relative_to(tmp_path / "aihub")) for each in tmp_path.rglob("*") if each.is_file()) == [
        f"{name}/yml/basic_auth.yml" for name in ("one", "three", "two")
    ]
    assert [each.name for each in tmp_path.rglob(".*")] == []


def test_the_name_of_a_server_may_be_as_long_as_a_folders(tmp_path: Path) -> None:
    generate_auth_file(tmp_path / ("e" * 255) / "yml" / "basic_auth.yml", "alice")


CREDENTIALS = """[default]
aws_access_key_id = AKDEFAULT
aws_secret_access_key = s=e%c/ret
[half]
aws_access_key_id = AKHALF
[DEFAULT]
aws_access_key_id = AKBIG
aws_secret_access_key = big
[session]
aws_access_key_id = ASIA
aws_secret_access_key = s
aws_session_token = t
"""


def test_profiles(tmp_path: Path) -> None:
    file = _write(tmp_path / "credentials", CREDENTIALS)
    assert profile_names(file) == ["default", "DEFAULT", "session"]
    pair = key_pair("default", file)
    assert (pair.access_key_id, pair.secret_access_key.reveal()) == ("AKDEFAULT", "s=e%c/ret")
    assert "s=e%c" not in repr(pair)
    assert profile_names(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("profile", "words"),
    [("none", "Choose one that it has: default, half"), ("half", "aws_secret_access_key"), ("session", "temporary")],
)
def test_profiles_that_cannot_be_used(tmp_path: Path, profile: str, words: str) -> None:
    with pytest.raises(ProfileError) as caught:
        key_pair(profile, _write(tmp_path / "credentials", CREDENTIALS))
    assert words in str(caught.value)


@pytest.mark.parametrize(("text", "line"), [(f"{SECRET} = x\n", 1), (f"[default]\n{SECRET}\n", 2)])
def test_a_broken_credentials_file_is_not_quoted(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(ProfileError) as caught:
        profile_names(_write(tmp_path / "credentials", text))
    assert f"line {line}" in str(caught.value)
    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_the_place_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(_write(tmp_path / "c", CREDENTIALS)))
    assert key_pair("default").access_key_id == "AKDEFAULT"
