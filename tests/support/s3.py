"""A real S3 store (SeaweedFS) for tests: started on free ports of loopback in a folder of its own, killed and removed at the end."""

import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from demo.ports import free_ports
from demo.store import REGION, Store, StoreError, StoreUser, make_store, new_user

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

WEED = str(Path(sys.executable).parent / "weed")
LIMITED_BUCKET = "limited-only"


@dataclass
class S3Store:
    """A running store with five users.

    `owner` and `other_owner` may do everything; `limited` everything inside `limited_bucket` and nothing else; `reader` reads and lists
    every bucket and writes none; `lister` lists every bucket and reads none. Each has `access_key` and `secret_key`.
    """

    store: Store
    region: str = REGION
    limited_bucket: str = LIMITED_BUCKET
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def endpoint_url(self) -> str:
        return self.store.endpoint_url

    @property
    def owner(self) -> StoreUser:
        return self.store.users["owner"]

    @property
    def other_owner(self) -> StoreUser:
        return self.store.users["other_owner"]

    @property
    def limited(self) -> StoreUser:
        return self.store.users["limited"]

    @property
    def reader(self) -> StoreUser:
        return self.store.users["reader"]

    @property
    def lister(self) -> StoreUser:
        return self.store.users["lister"]

    def client(self, user: StoreUser | None = None) -> "S3Client":
        """A boto3 client; the owner's unless a user is given (any `StoreUser`, so that wrong keys can be tried too)."""
        return self.store.client_of(user or self.owner)

    def make_bucket(self, name: str | None = None) -> str:
        """A new empty bucket, named at random unless said; returns its name."""
        bucket = name or f"test-{uuid.uuid4().hex[:16]}"
        self.client().create_bucket(Bucket=bucket)
        return bucket

    def start(self) -> None:
        """Start it on its ports and wait until it is usable; the data of an earlier run is there again."""
        log = (self.store.home / "log").open("ab")
        # The store dies with the test run even when that is killed.
        argv = ["setpriv", "--pdeathsig", "KILL", *self.store.command(WEED)]
        with log:
            self._process = subprocess.Popen(
                argv, cwd=self.store.home, env=self.store.environment(), umask=0o077, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        process = self._process
        try:
            self.store.wait_ready(alive=lambda: process.poll() is None)
        except StoreError as error:
            self.stop()
            error.add_note((self.store.home / "log").read_text(errors="replace")[-4000:])
            raise

    def stop(self) -> None:
        """Kill it. Connections are refused afterwards, and the data stays for the next `start`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.store.remove_sockets()

    def pause(self) -> None:
        """Stop answering without closing: clients wait until their own time limit."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.store.home)


def start_s3_store() -> S3Store:
    """A new running store. Another run may take a port between the choice and the start: then other ports are tried."""
    home = Path(tempfile.mkdtemp(prefix="s3-", dir="/tmp"))
    actions = [f"{action}:{LIMITED_BUCKET}" for action in ("Read", "Write", "List", "Tagging")]
    rights = {"limited": actions, "reader": ["Read", "List"], "lister": ["List"]}
    users = [new_user("owner"), new_user("other_owner"), *(new_user(name, actions=may) for name, may in rights.items())]
    store = S3Store(make_store(home, users))
    for attempt in (1, 2, 3):
        try:
            store.start()
            break
        except StoreError:
            if attempt == 3:
                raise
            ports = dict(zip(store.store.ports, free_ports(len(store.store.ports)), strict=True))
            store = S3Store(Store(home, ports, store.store.users, store.store.keeper))
    store.make_bucket(LIMITED_BUCKET)
    return store
