"""A throwaway Ceph with its object gateway, closest to what sites run: one mon, mgr, osd and radosgw in a folder of their own.

Needs Debian's ceph-mon, ceph-osd, ceph-mgr, radosgw and ceph-common (`bin/setup heavy`). About 20 seconds to start, 0.5 GB of memory.
Every daemon listens on loopback only, is started here and stopped by its process; nothing is written outside the folder.
"""

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from demo.ports import free_ports
from demo.store import REGION, StoreUser, s3_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LOOPBACK = "127.0.0.1"
DISK_BYTES = 6 << 30
START_SECONDS = 240.0  # on a machine with nothing else to do, 20
_CONF = """\
[global]
fsid = {fsid}
mon host = v2:{loopback}:{mon}
public network = 127.0.0.0/8
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {home}/keyring
run dir = {home}
admin socket = {home}/$name.asok
log file = {home}/$name.log
pid file =
mon cluster log file = {home}/cluster.log
crash dir = {home}/crash
ms bind ipv6 = false
ms bind msgr1 = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 1
mon data = {home}/mon
mgr data = {home}/mgr
osd data = {home}/osd
osd objectstore = bluestore
bluestore block size = {disk}
bluestore fsck on mount = false
osd memory target = 939524096
mgr initial modules =
rgw data = {home}/rgw
rgw frontends = beast endpoint={loopback}:{rgw}
rgw enable usage log = false
rgw gc obj min wait = 5
rgw dynamic resharding = false
"""


class CephError(Exception):
    """It could not be started; the message names the log."""


@dataclass
class Ceph:
    """A running gateway. `user` makes further users of it; the first one is `owner`."""

    home: Path
    port: int
    region: str = REGION
    _daemons: "list[subprocess.Popen[bytes]]" = field(default_factory=list, repr=False)
    _users: dict[str, StoreUser] = field(default_factory=dict, repr=False)

    @property
    def endpoint_url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def owner(self) -> StoreUser:
        return self.user("owner")

    def user(self, name: str) -> StoreUser:
        """The user of that name, made when asked for the first time."""
        if name not in self._users:
            told = self.run("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}")
            key = json.loads(told)["keys"][0]
            self._users[name] = StoreUser(name, key["access_key"], key["secret_key"], ())
        return self._users[name]

    @property
    def reader(self) -> StoreUser:
        """Reads and lists every bucket that `make_bucket` made, and writes none."""
        return self.user("reader")

    def client(self, user: StoreUser | None = None) -> "S3Client":
        """A boto3 client; the owner's unless a user is given."""
        return s3_client(self.endpoint_url, user or self.owner)

    def make_bucket(self, name: str | None = None) -> str:
        """A new empty bucket of the owner's, named at random unless said; returns its name."""
        bucket = name or f"test-{uuid.uuid4().hex[:16]}"
        self.client().create_bucket(Bucket=bucket)
        resource = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        who = {"AWS": [f"arn:aws:iam:::user/{self.reader.name}"]}
        statement = {"Effect": "Allow", "Principal": who, "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": resource}
        self.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
        return bucket

    def set_quota(self, name: str, *, megabytes: int) -> None:
        """Bound what all buckets of a user may hold; more is refused with 403 QuotaExceeded."""
        self.run("radosgw-admin", "quota", "set", "--quota-scope=user", f"--uid={name}", f"--max-size={megabytes << 20}")
        self.run("radosgw-admin", "quota", "enable", "--quota-scope=user", f"--uid={name}")

    def run(self, program: str, *argv: str) -> str:
        """One of Ceph's own commands on this cluster. Raises CephError with what it said."""
        argv = (program, "--conf", str(self.home / "ceph.conf"), *argv)
        done = subprocess.run(argv, cwd=self.home, capture_output=True, text=True, timeout=START_SECONDS, check=False)
        if done.returncode:
            raise CephError(f"{' '.join(argv)}: {done.stderr[-2000:]}")
        return done.stdout

    def spawn(self, program: str, *argv: str) -> None:
        """A daemon in the foreground, which dies with the test run even when that is killed."""
        argv = ("setpriv", "--pdeathsig", "KILL", program, "--conf", str(self.home / "ceph.conf"), "-f", *argv)
        with (self.home / "output").open("ab") as output:
            self._daemons.append(subprocess.Popen(argv, cwd=self.home, stdin=subprocess.DEVNULL, stdout=output, stderr=output))

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Until it is ready. Raises CephError when a daemon ended or the time is over."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if any(daemon.poll() is not None for daemon in self._daemons) or time.monotonic() > deadline:
                raise CephError(f"{what}: {(self.home / 'output').read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)

    def remove(self) -> None:
        """Kill all of it and remove the folder."""
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()
        shutil.rmtree(self.home)


def start_ceph() -> Ceph:
    """A new running gateway with its user `owner`."""
    mon, rgw = free_ports(2)
    ceph = Ceph(Path(tempfile.mkdtemp(prefix="ceph-", dir="/tmp")), rgw)
    try:
        _make(ceph, mon)
        _start(ceph)
    except BaseException:
        ceph.remove()
        raise
    return ceph


@contextlib.contextmanager
def running_ceph() -> Iterator[Ceph]:
    ceph = start_ceph()
    try:
        yield ceph
    finally:
        ceph.remove()


def _make(ceph: Ceph, mon_port: int) -> None:
    home, fsid = ceph.home, str(uuid.uuid4())
    conf = _CONF.format(fsid=fsid, loopback=LOOPBACK, mon=mon_port, rgw=ceph.port, home=home, disk=DISK_BYTES)
    (home / "ceph.conf").write_text(conf)
    everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *", "--cap", "mds", "allow *")
    for name, caps in {"mon.": ("--cap", "mon", "allow *"), "client.admin": everything, "mgr.x": everything, "osd.0": everything,
                       "client.rgw": everything}.items():  # fmt: skip
        created = () if (home / "keyring").exists() else ("--create-keyring",)
        _tool("ceph-authtool", home / "keyring", *created, "--gen-key", "-n", name, *caps)
    _tool("monmaptool", "--create", "--fsid", fsid, "--addv", "x", f"[v2:{LOOPBACK}:{mon_port}]", home / "monmap")
    for folder in ("mon", "mgr", "osd", "rgw", "crash"):
        (home / folder).mkdir()
    ceph.run("ceph-mon", "--mkfs", "-i", "x", "--monmap", str(home / "monmap"), "--keyring", str(home / "keyring"))


def _start(ceph: Ceph) -> None:
    ceph.spawn("ceph-mon", "-i", "x")
    ceph.run("ceph", "--connect-timeout", str(int(START_SECONDS) - 5), "status")
    ceph.spawn("ceph-mgr", "-i", "x")
    osd = str(uuid.uuid4())
    ceph.run("ceph", "osd", "new", osd)
    ceph.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    ceph.spawn("ceph-osd", "-i", "0")
    ceph.wait(lambda: "1 up" in ceph.run("ceph", "osd", "stat"), "the osd")
    ceph.spawn("radosgw", "-n", "client.rgw")
    ceph.wait(lambda: _answers(ceph.endpoint_url), "the gateway")


def _tool(*argv: str | Path) -> None:
    subprocess.run(argv, capture_output=True, check=True)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  # our own http address
            return bool(answer.status == 200)
    except OSError:
        return False
