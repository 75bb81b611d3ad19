"""The installation pages as a test walks them: their commands, and the host that they lead to."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.fresh_host import ROOT, FreshHost

HOST = "mlflow01.example.org"
_BEFORE_A_COMMAND = {"|", "||", "&&", ";", "while", "do", "if", "then"}
_STORE = """
import json, sys
from tests.support.docker_service import forwarded
from tests.support.s3 import start_s3_store
store = start_s3_store()
store.make_bucket("wine-models")
keys = {"id": store.owner.access_key, "key": store.owner.secret_key}
with forwarded("0.0.0.0", store.store.ports["s3"]) as port:
    print(json.dumps({"endpoint_url": f"http://{sys.argv[1]}:{port}", **keys}), flush=True)
    sys.stdin.read()
store.remove()
"""


class Page:
    """One page of the documentation, by its place in docs/."""

    def __init__(self, place: str) -> None:
        self.text = (ROOT / "docs" / place).read_text()

    def block(self, heading: str, language: str = "sh", number: int = 0) -> str:
        """A fenced block of one of its sections."""
        section = self.text.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
        found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        return found[number]

    def programs(self, *, but: str = "") -> set[str]:
        """What its commands begin with (programs, and the shell's own words), also behind a pipe; not those of the section `but`."""
        sections = [section for section in self.text.split("\n## ") if not but or not section.startswith(but)]
        blocks = [block for section in sections for block in re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)]
        return {program for block in blocks for line in block.splitlines() for program in _programs(line)}


def _programs(line: str) -> Iterator[str]:
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    begins = True
    for word in words:
        if begins and not re.match(r"\w+=", word):  # a variable of that command's
            yield word
        begins = word in _BEFORE_A_COMMAND or (begins and bool(re.match(r"\w+=", word)))


@dataclass
class Installed:
    """The host after the page's steps, with a user, an object store that it reaches, and how long all took."""

    host: FreshHost
    store: dict[str, str]
    seconds: float
    login: dict[str, str] = field(default_factory=dict)

    def add_alice(self) -> None:
        """A user with a group area and the store's key."""
        self.host.run("groupadd alice; useradd -m -g alice alice; mkdir -p /groups/alice/aihub; chown -R alice:alice /groups/alice")
        keys = f"[default]\naws_access_key_id = {self.store['id']}\naws_secret_access_key = {self.store['key']}\n"
        self.host.write("/home/alice/.aws/credentials", keys)
        self.host.run("chown -R alice: /home/alice/.aws; chmod -R go= /home/alice/.aws")

    def as_alice(self, script: str, *, check: bool = True) -> str:
        whole = f"export HOME=/home/alice PATH=/opt/aihub/venv/bin:$PATH LANG=C.UTF-8\ncd\n{script}"
        done = self.host.run(whole, user="alice", check=check)
        return done.stdout + done.stderr

    def learn_login(self) -> None:
        """`login` becomes what a job's environment needs for the user's tracking server."""
        show = "import json, os; print(json.dumps({name: os.environ[name] for name in os.environ if name.startswith('MLFLOW_')}))"
        self.login = json.loads(self.as_alice(f'. /dev/stdin <<< "$(mlwf server env alice/wine)"\npython3 -c "{show}"'))

    def answers(self, *, check: bool = True) -> str:
        """What the tracking server says to its user; with `check` there must be an answer."""
        return self.as_alice(
            """
            . /dev/stdin <<< "$(mlwf server env alice/wine)"
            curl -sS -u "$MLFLOW_TRACKING_USERNAME:$MLFLOW_TRACKING_PASSWORD" -H 'Content-Type: application/json' \\
                -d '{"max_results": 9}' -X POST "${MLFLOW_TRACKING_URI%/}/api/2.0/mlflow/experiments/search"
            """,
            check=check,
        )

    def main_pid(self, unit: str) -> int:
        return int(self.host.run(f"systemctl show --property=MainPID --value {unit}").stdout)

    def findings(self) -> dict[str, str]:
        """What `aihub check` does not find well: name to state."""
        done = self.host.run("AIHUB_SETTINGS=/etc/aihub/settings.yml aihub check --json", check=False)
        return {each["name"]: each["state"] for each in json.loads(done.stdout) if each["state"] != "ok"}


@contextmanager
def object_store(entered: Sequence[str], address: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """A store in the network that `entered` enters, by this machine's programs, at that address of it."""
    argv = [*entered, sys.executable, "-c", _STORE, address]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(30)
