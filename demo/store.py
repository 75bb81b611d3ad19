"""The embedded object store: a real SeaweedFS in one folder, closed to everybody else on the machine.

SeaweedFS trusts its network. On a machine with other users it must be told not to: every listener is on loopback (S3's on Docker's bridge
where containers must reach it), gRPC is mutual TLS with a CA of this folder alone, reads and writes between its parts are signed, its HTTP
interfaces are off, and the folder is the owner's.
"""

import datetime as dt
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from demo.errors import DemoError
from demo.files import write_private
from demo.ports import LOOPBACK, free_ports

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "us-east-1"
_LISTENERS = ("master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc", "s3", "s3_grpc")
_COMPONENTS = ("volume", "master", "filer", "s3", "msg_broker", "client", "admin", "worker")
_SENTINEL_BUCKET = "store-sentinel"
_SENTINEL_KEY = "object"


class StoreError(DemoError):
    """The store does not run; the message says why and what to do."""


@dataclass(frozen=True)
class StoreUser:
    """One user of the store. `actions` are SeaweedFS's: `Admin`, `Read`, `Write`, `List`, `Tagging`, each for all or as `Read:BUCKET`."""

    name: str
    access_key: str
    secret_key: str = field(repr=False)
    actions: tuple[str, ...] = ("Admin", "Read", "Write", "List", "Tagging")


def new_user(name: str, *, actions: Iterable[str] | None = None) -> StoreUser:
    """A user with fresh keys; without `actions` one that may do everything."""
    access_key = "AK" + secrets.token_hex(9).upper()
    secret_key = secrets.token_urlsafe(30)
    if actions is None:
        return StoreUser(name, access_key, secret_key)
    return StoreUser(name, access_key, secret_key, tuple(actions))


@dataclass(frozen=True)
class Store:
    """A store's folder, ports and users. Made once by `make_store`, read again by `load_store`. `host`: where S3 alone is spoken."""

    home: Path
    ports: dict[str, int]
    users: dict[str, StoreUser]
    keeper: StoreUser
    host: str = LOOPBACK

    @property
    def endpoint_url(self) -> str:
        return f"http://{self.host}:{self.ports['s3']}"

    def client(self, user: str) -> "S3Client":
        """A boto3 client that signs as this user, set up as S3-like stores need it."""
        return self.client_of(self.users[user])

    def client_of(self, user: StoreUser) -> "S3Client":
        """The same for keys that the store need not know."""
        return s3_client(self.endpoint_url, user)

    def command(self, weed: str) -> list[str]:
        """The argv that runs the store in the foreground. It holds no secret; run it in `home` with `environment()`."""
        port = self.ports
        # Each bucket takes a volume of its own, and there are as many as the free disk holds of this size: they are small, so that a run
        # with hundreds of buckets does not run out of them.
        return [
            weed, "-logtostderr=true", "server",
            f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", "-dir=data", "-disableHttp",
            f"-master.port={port['master']}", f"-master.port.grpc={port['master_grpc']}", "-master.volumeSizeLimitMB=64",
            "-master.telemetry=false", "-master.resumeState=false",
            f"-volume.port={port['volume']}", f"-volume.port.grpc={port['volume_grpc']}", "-volume.max=0", "-volume.preStopSeconds=0",
            "-filer", f"-filer.port={port['filer']}", f"-filer.port.grpc={port['filer_grpc']}", "-filer.localSocket=filer.sock",
            "-s3", f"-s3.port={port['s3']}", f"-s3.port.grpc={port['s3_grpc']}", f"-s3.ip.bind={self.host}", "-s3.localSocket=s3.sock",
            "-s3.config=s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false",
            "-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false", "-s3.defaultFileMode=0600",
        ]  # fmt: skip

    def remove_sockets(self) -> None:
        """Remove what a killed store leaves outside its folder: sockets in /tmp, a place that SeaweedFS does not let one choose."""
        for part in ("master", "volume", "filer", "s3"):
            Path(f"/tmp/seaweedfs-{part}-grpc-{self.ports[part + '_grpc']}.sock").unlink(missing_ok=True)  # noqa: S108

    def environment(self) -> dict[str, str]:
        """The store's whole environment; its own settings file is found from HOME and the working directory."""
        return {"HOME": str(self.home), "PATH": os.defpath}

    def wait_ready(self, *, alive: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until objects can be written and, after a restart, old ones can be read.

        Raises:
            StoreError: it ended or did not become ready in time.
        """
        deadline = time.monotonic() + seconds
        client = s3_client(self.endpoint_url, self.keeper)
        while True:
            problem = _probe(client)
            if problem is None:
                return
            if not alive():
                raise StoreError("the object store ended while starting: its log says why")
            if time.monotonic() > deadline:
                raise StoreError(f"the object store was not ready after {seconds:.0f} s ({problem}): its log says why")
            time.sleep(0.1)


def make_store(home: Path, users: Iterable[StoreUser]) -> Store:
    """Make the folder of a new store (0700, files 0600) with its certificates, keys, users and ports."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    (home / "data").mkdir(mode=0o700, exist_ok=True)
    _write_certificates(home)
    write_private(home / "security.toml", _security_toml())
    store = Store(home, dict(zip(_LISTENERS, free_ports(len(_LISTENERS)), strict=True)), {u.name: u for u in users}, new_user("keeper"))
    write_private(home / "s3.json", json.dumps(_identities([*store.users.values(), store.keeper])))
    save_ports(store)
    return store


def load_store(home: Path) -> Store:
    """The store that `make_store` made in this folder.

    Raises:
        StoreError: there is none.
    """
    try:
        ports = json.loads((home / "ports.json").read_text())
        identities = json.loads((home / "s3.json").read_text())["identities"]
    except FileNotFoundError as error:
        raise StoreError(f"{home} holds no object store ({error.filename} is missing): remove the folder, it is made anew") from error
    users = {identity["name"]: _user(identity) for identity in identities}
    keeper = users.pop("keeper")
    return Store(home, ports, users, keeper)


def save_ports(store: Store) -> None:
    write_private(store.home / "ports.json", json.dumps(store.ports))


def s3_client(endpoint_url: str, user: StoreUser) -> "S3Client":
    settings = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=5,
        read_timeout=60,
        retries={"max_attempts": 1},
    )
    session = boto3.session.Session(aws_access_key_id=user.access_key, aws_secret_access_key=user.secret_key, region_name=REGION)
    return session.client("s3", endpoint_url=endpoint_url, config=settings)


def _probe(client: "S3Client") -> str | None:
    """Why the store is not ready, or None. An object known from earlier must be readable, or a new one writable."""
    try:
        buckets = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
        if _SENTINEL_BUCKET not in buckets:
            client.create_bucket(Bucket=_SENTINEL_BUCKET)
        names = client.list_objects_v2(Bucket=_SENTINEL_BUCKET).get("Contents", [])
        if not names:
            client.put_object(Bucket=_SENTINEL_BUCKET, Key=_SENTINEL_KEY, Body=os.urandom(64 * 1024))
        client.get_object(Bucket=_SENTINEL_BUCKET, Key=_SENTINEL_KEY)["Body"].read()
    except (ClientError, BotoCoreError) as error:
        return str(error)
    return None


def _user(identity: dict[str, Any]) -> StoreUser:
    key = identity["credentials"][0]
    return StoreUser(identity["name"], key["accessKey"], key["secretKey"], tuple(identity["actions"]))


def _identities(users: Iterable[StoreUser]) -> dict[str, Any]:
    return {
        "identities": [
            {"name": u.name, "credentials": [{"accessKey": u.access_key, "secretKey": u.secret_key}], "actions": list(u.actions)}
            for u in users
        ]
    }


def _security_toml() -> str:
    keys = "\n".join(
        f'[jwt.{name}]\nkey = "{secrets.token_urlsafe(32)}"\nexpires_after_seconds = 60\n'
        for name in ("signing", "signing.read", "filer_signing", "filer_signing.read")
    )
    grpc = "\n".join(f'[grpc.{name}]\ncert = "tls.crt"\nkey = "tls.key"\n' for name in _COMPONENTS)
    return f'{keys}\n[access]\nui = false\n\n[filer.expose_directory_metadata]\nenabled = false\n\n[grpc]\nca = "ca.crt"\n\n{grpc}'


def _write_certificates(home: Path) -> None:
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("store CA", ca_key, issuer="store CA", issuer_key=ca_key, is_ca=True)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate("store", key, issuer="store CA", issuer_key=ca_key, is_ca=False)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(home / "ca.crt", ca.public_bytes(serialization.Encoding.PEM).decode())
    write_private(home / "tls.crt", certificate.public_bytes(serialization.Encoding.PEM).decode())
    write_private(home / "tls.key", private.decode())


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, *, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, is_ca: bool
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    if not is_ca:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(usage, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
