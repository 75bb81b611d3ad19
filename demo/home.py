"""The demo's folder: what is chosen once and kept, so that `up` after `down` finds everything as it was."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from demo.errors import DemoError
from demo.files import write_private
from demo.ports import LOOPBACK, free_ports, free_range
from demo.store import Store, StoreUser, load_store, make_store, new_user

# The kernel takes 107 bytes for the path of a Unix socket; this leaves some for temporary names.
SOCKET_PATH_BYTES = 95
TRACKING_SERVER_PORTS = 50
BUCKET = "mlflow-demo"
PROFILE = "demo"


@dataclass
class State:
    """What was chosen once. `wanted`: whether the demo should run. `alias`: a short path to the folder while it runs, if one is needed.
    `docker_host`: the daemon whose containers the tracking servers are; None: they are processes. `store_host`: where they reach the store.
    """

    console_port: int
    first_server_port: int
    wanted: bool = False
    alias: str | None = None
    docker_host: str | None = None
    store_host: str = LOOPBACK


@dataclass(frozen=True)
class Home:
    """One demo's folder. Everything below it is the owner's alone."""

    path: Path

    @property
    def service_settings(self) -> Path:
        return self.path / "service.yml"

    @property
    def groups(self) -> Path:
        return self.path / "groups"

    @property
    def credentials(self) -> Path:
        return self.path / "aws" / "credentials"

    @property
    def logs(self) -> Path:
        return self.path / "log"

    def process_file(self, part: str) -> Path:
        return self.path / "run" / f"{part}.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time changes the demo; others wait."""
        self._make_folders()
        with (self.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def exists(self) -> bool:
        return self._state_file.exists()

    def state(self) -> State:
        """What was chosen at the first start; chosen now where there was none."""
        if not self.exists():
            console, *_rest = free_ports(1)
            self.save(State(console, free_range(TRACKING_SERVER_PORTS)))
        return State(**json.loads(self._state_file.read_text()))

    def save(self, state: State) -> None:
        write_private(self._state_file, json.dumps(asdict(state)))

    @property
    def service(self) -> Path:
        """The service's folder, by a path that is short enough for the sockets in it."""
        return self._short() / "service"

    @property
    def socket(self) -> Path:
        return self.service / "run" / "service.sock"

    def drop_alias(self) -> None:
        """Remove the short path, if there was one; the next start makes another."""
        state = self.state()
        if state.alias:
            Path(state.alias).unlink(missing_ok=True)
            with suppress(FileNotFoundError):  # a cleaner of /tmp was here
                Path(state.alias).parent.rmdir()
            self.save(replace(state, alias=None))

    def _short(self) -> Path:
        if len(os.fsencode(self.path / "service" / "run" / "reconciler.sock")) <= SOCKET_PATH_BYTES:
            return self.path
        state = self.state()
        if state.alias is None or not Path(state.alias).is_symlink():
            state.alias = str(Path(tempfile.mkdtemp(prefix="demo-", dir="/tmp")) / "home")
            Path(state.alias).symlink_to(self.path)
            self.save(state)
        return Path(state.alias)

    def store(self) -> Store:
        """The embedded object store, made at the first call: `demo` is its user with one bucket, `admin` may make others."""
        folder = self.path / "store"
        if (folder / "s3.json").exists():
            store = load_store(folder)
        else:
            actions = [f"{action}:{BUCKET}" for action in ("Read", "Write", "List", "Tagging")]
            store = make_store(folder, [new_user(PROFILE, actions=actions), new_user("admin")])
        return replace(store, host=self.state().store_host)

    def write_credentials(self, user: StoreUser) -> None:
        """The AWS credentials file that **Read credentials** offers; profiles that the user added stay."""
        if not self.credentials.exists():
            text = f"[{PROFILE}]\naws_access_key_id = {user.access_key}\naws_secret_access_key = {user.secret_key}\n"
            write_private(self.credentials, text)

    @property
    def _state_file(self) -> Path:
        return self.path / "state.json"

    def _make_folders(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.path / "run", self.logs, self.groups, self.credentials.parent, self.path / "service"):
                folder.mkdir(exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise DemoError(f"{self.path} cannot hold the demo ({error.strerror}): set DEMO_HOME to a folder that you may write") from error
