"""The embedded store: usable by its users, closed to others on the machine, and its data survive kill -9."""

import contextlib
import http.client
import socket
import stat
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from demo.store import StoreUser, load_store
from tests.support.s3 import S3Store


def _code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_each_user_does_what_it_may_and_no_more(s3_store: S3Store) -> None:
    other = s3_store.make_bucket()
    s3_store.client().put_object(Bucket=other, Key="a/b", Body=b"content")
    limited, reader = s3_store.client(s3_store.limited), s3_store.client(s3_store.reader)

    limited.put_object(Bucket=s3_store.limited_bucket, Key="mine", Body=b"1")
    assert reader.get_object(Bucket=other, Key="a/b")["Body"].read() == b"content"
    with pytest.raises(ClientError) as refused:
        limited.get_object(Bucket=other, Key="a/b")
    assert _code(refused) == "AccessDenied"
    with pytest.raises(ClientError) as refused:
        reader.put_object(Bucket=other, Key="c", Body=b"1")
    assert _code(refused) == "AccessDenied"


def test_wrong_secrets_unknown_keys_and_unknown_buckets_are_refused_by_name(s3_store: S3Store) -> None:
    owner = s3_store.owner
    with pytest.raises(ClientError) as refused:
        s3_store.client(StoreUser("x", owner.access_key, "wrong")).list_buckets()
    assert _code(refused) == "SignatureDoesNotMatch"
    with pytest.raises(ClientError) as refused:
        s3_store.client(StoreUser("x", "AKUNKNOWN", "wrong")).list_buckets()
    assert _code(refused) == "InvalidAccessKeyId"
    with pytest.raises(ClientError) as refused:
        s3_store.client().put_object(Bucket="never-made", Key="a", Body=b"1")
    assert _code(refused) == "NoSuchBucket"


def test_every_listener_is_on_loopback_and_every_file_is_the_owners(s3_store: S3Store) -> None:
    ports = s3_store.store.ports
    addresses = [tuple(c.laddr) for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    ours = {(ip, port) for ip, port in addresses if port in ports.values()}
    assert ours == {("127.0.0.1", port) for port in ports.values()}

    home = s3_store.store.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for name in ("security.toml", "s3.json", "tls.key", "ports.json", "filer.sock", "s3.sock"):
        assert stat.S_IMODE((home / name).stat().st_mode) & 0o077 == 0, name


@pytest.mark.parametrize("part", ["filer", "volume"])
def test_a_neighbour_cannot_go_round_the_keys_by_http(s3_store: S3Store, part: str) -> None:
    bucket = s3_store.make_bucket()
    s3_store.client().put_object(Bucket=bucket, Key="hidden", Body=b"not for neighbours")
    connection = http.client.HTTPConnection("127.0.0.1", s3_store.store.ports[part], timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", f"/buckets/{bucket}/hidden")
        answer = connection.getresponse()
        assert answer.status >= 400
        assert b"not for neighbours" not in answer.read()


@pytest.mark.parametrize("part", ["filer_grpc", "master_grpc", "volume_grpc", "s3_grpc"])
def test_a_neighbour_without_a_certificate_cannot_speak_grpc(s3_store: S3Store, part: str) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    with socket.create_connection(("127.0.0.1", s3_store.store.ports[part]), timeout=10) as connection:
        connection.sendall(preface)
        # A plain HTTP/2 server would answer with its settings frame; a TLS server ends with an alert (21) or nothing.
        answer = connection.recv(64)
    assert answer[:1] in {b"", b"\x15"}


def test_data_and_ports_survive_kill_9(own_s3_store: S3Store) -> None:
    bucket = own_s3_store.make_bucket()
    own_s3_store.client().put_object(Bucket=bucket, Key="a", Body=b"x" * 200_000)
    endpoint = own_s3_store.endpoint_url
    own_s3_store.stop()
    left = [path for path in Path("/tmp").glob("seaweedfs-*.sock") if str(own_s3_store.store.ports["s3_grpc"]) in path.name]
    assert left == []

    again = load_store(own_s3_store.store.home)
    assert (again.endpoint_url, again.users["owner"]) == (endpoint, own_s3_store.owner)
    own_s3_store.start()
    assert own_s3_store.client().get_object(Bucket=bucket, Key="a")["Body"].read() == b"x" * 200_000
