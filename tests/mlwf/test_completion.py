"""The Tab key in a real bash: names as directories (AD, sssd) give them must come out as they must be written."""

import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mlwf.exporting import surroundings
from tests.mlwf.fake_service import FakeService

GROUPS = ["domain users", "DOMAIN\\group", "staff@ad.example.org", "研究室", "it's"]
SET_UP = r"""
PS1= PS2=
bind 'set bell-style none'; bind 'set enable-bracketed-paste off'
bind -x '"\C-x\C-p": printf "LINE<%s>END" "$READLINE_LINE"'
eval "$(mlwf completion bash)"
stty -echo
printf 'READ%s\n' Y
"""
Press = Callable[[str], str]


@pytest.fixture
def press(service: FakeService, tmp_path: Path) -> Iterator[Press]:
    """Types the beginning of a line and the Tab key, and answers the line."""
    for group in GROUPS:
        service.add(group, "wine")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = surroundings(tmp_path, {"MLWF_SERVICE": service.address, "PATH": path, "TERM": "dumb"})
    ours, theirs = pty.openpty()
    argv = ["setpriv", "--pdeathsig", "KILL", "bash", "--norc", "--noprofile", "-i"]
    shell = subprocess.Popen(argv, env=env, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)

    def seen(mark: bytes) -> str:
        screen = b""
        while mark not in screen:
            screen += os.read(ours, 65536)
        return screen.decode()

    def pressed(beginning: str) -> str:
        os.write(ours, f"{beginning}\t\x18\x10".encode())
        line = seen(b">END").rpartition("LINE<")[2].removesuffix(">END")
        os.write(ours, b"\x15")
        return line

    os.write(ours, SET_UP.encode())
    seen(b"READY")
    yield pressed
    shell.kill()
    shell.wait()
    os.close(ours)


def test_a_completed_name_is_one_word_of_the_shell_and_the_groups_own(press: Press) -> None:
    for typed, group in [
        ("dom", "domain users"),
        ("domain\\ u", "domain users"),
        ('"domain u', "domain users"),
        ('"domain users"/w', "domain users"),
        ("DOM", "DOMAIN\\group"),
        ("st", "staff@ad.example.org"),
        ("staff@", "staff@ad.example.org"),
        ("staff@ad.ex", "staff@ad.example.org"),
        ('"staff@ad', "staff@ad.example.org"),
        ("研", "研究室"),
        ("it", "it's"),
    ]:
        line = press(f"mlwf server show {typed}")
        assert shlex.split(line) == ["mlwf", "server", "show", f"{group}/wine"], line


def test_after_the_slash_of_a_group_the_name_of_a_new_server_is_typed_at_once(press: Press) -> None:
    line = press("mlwf server create ga")
    assert line == "mlwf server create gaa50000/"
