"""The object store's probe, against a real store and against all sorts of things that are none."""

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mlwf.wire import trust

from backend.adapters import s3
from backend.adapters.s3 import S3
from backend.adapters.s3_errors import Target, from_answer
from demo.ports import free_ports
from tests.service.edge.probing import failure, key, storage
from tests.support.s3 import S3Store

DRIPS_SECONDS = 15.0
"""How long who drips goes on: whoever had no patience of its own would wait as long."""

Talk = Callable[[socket.socket], None]


class TestRealStore:
    def test_a_good_key(self, s3_store: S3Store) -> None:
        bucket = s3_store.make_bucket()
        others = len(s3_store.client().list_buckets()["Buckets"]) - 1
        probe = S3().probe(storage=storage(s3_store.endpoint_url, bucket), key=key(s3_store.owner))
        assert probe.other_buckets == others > 0
        self.nothing_is_left(s3_store, bucket)

    def test_a_key_that_opens_one_bucket(self, s3_store: S3Store) -> None:
        s3_store.make_bucket(s3_store.limited_bucket) if self.missing(s3_store, s3_store.limited_bucket) else None
        before = self.objects(s3_store, s3_store.limited_bucket)
        probe = S3().probe(storage=storage(s3_store.endpoint_url, s3_store.limited_bucket), key=key(s3_store.limited))
        assert not probe.other_buckets
        assert self.objects(s3_store, s3_store.limited_bucket) == before

    def test_objects_of_others_stay(self, s3_store: S3Store) -> None:
        bucket = s3_store.make_bucket()
        s3_store.client().put_object(Bucket=bucket, Key="mlflow/k3v9x2m7q4ab/model", Body=b"x")
        S3().probe(storage=storage(s3_store.endpoint_url, bucket), key=key(s3_store.owner))
        assert [each["Key"] for each in s3_store.client().list_objects_v2(Bucket=bucket)["Contents"]] == ["mlflow/k3v9x2m7q4ab/model"]

    def test_each_mistake_has_its_code(self, s3_store: S3Store) -> None:
        bucket, url = s3_store.make_bucket(), s3_store.endpoint_url
        owner = s3_store.owner
        unknown = replace(owner, access_key="AKNOBODYKNOWSIT")
        wrong = replace(owner, secret_key="not-the-secret-of-this-key")
        assert failure(storage(url, bucket), key(unknown)).code == "storage_key_unknown"
        assert failure(storage(url, bucket), key(wrong)).code == "storage_secret_wrong"
        missing = failure(storage(url, "no-such-bucket-here"), key(owner))
        assert (missing.code, missing.params["bucket"]) == ("storage_bucket_missing", "no-such-bucket-here")

    def test_what_the_key_may_not_do_is_named(self, s3_store: S3Store) -> None:
        bucket = s3_store.make_bucket()
        reader = failure(storage(s3_store.endpoint_url, bucket), key(s3_store.reader))
        assert (reader.code, reader.params["action"]) == ("storage_forbidden", "write")
        stranger = failure(storage(s3_store.endpoint_url, bucket), key(s3_store.limited))
        assert (stranger.code, stranger.params["action"]) == ("storage_forbidden", "list")
        self.nothing_is_left(s3_store, bucket)

    @pytest.mark.parametrize("step", ["_read", "_upload", "_delete"])
    def test_nothing_is_left_when_a_step_fails(self, s3_store: S3Store, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The step itself is done and then said to have failed, once: what it made must be removed."""
        from botocore.exceptions import ReadTimeoutError

        original, bucket, calls = getattr(s3._Trial, step), s3_store.make_bucket(), iter(range(100))

        def failing(trial: object, *given: str) -> None:
            if next(calls) == 0:
                if step == "_upload":
                    made = trial.client.create_multipart_upload(Bucket=bucket, Key="mlflow/k3v9x2m7q4ab/p")  # type: ignore[attr-defined]
                    trial.uploads["mlflow/k3v9x2m7q4ab/p"] = made["UploadId"]  # type: ignore[attr-defined]
                raise ReadTimeoutError(endpoint_url="x")
            original(trial, *given)

        monkeypatch.setattr(s3._Trial, step, failing)
        assert failure(storage(s3_store.endpoint_url, bucket), key(s3_store.owner), S3()).code == "storage_unreachable"
        self.nothing_is_left(s3_store, bucket)

    @staticmethod
    def objects(store: S3Store, bucket: str) -> list[str]:
        return [each["Key"] for each in store.client().list_objects_v2(Bucket=bucket).get("Contents", ())]

    @staticmethod
    def nothing_is_left(store: S3Store, bucket: str) -> None:
        assert store.client().list_objects_v2(Bucket=bucket).get("KeyCount", 0) == 0
        assert not store.client().list_multipart_uploads(Bucket=bucket).get("Uploads")

    @staticmethod
    def missing(store: S3Store, bucket: str) -> bool:
        return bucket not in {each["Name"] for each in store.client().list_buckets()["Buckets"]}


@contextmanager
def listener(talk: Talk, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that says what a test wants to every connection, on a port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                try:
                    with connection if context is None else context.wrap_socket(connection, server_side=True) as spoken:
                        talk(spoken)
                except OSError:
                    continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def says(text: str, body: str = "", kind: str = "text/html") -> Talk:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(
            f"HTTP/1.1 {text}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )

    return talk


def xml(code: str) -> str:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>m</Message></Error>'


def endless(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n<a>")
    while True:
        connection.sendall(b"x" * 65536)


def stalled(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: 500\r\n\r\n<a>")
    silent(connection)


def drips(first: bytes) -> Talk:
    """That, and then a byte at a time, until the other side has enough; not for ever, so that a test of one without patience ends."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(first)
        ends, left = time.monotonic() + DRIPS_SECONDS, [connection]
        while left and time.monotonic() < ends:
            connection.sendall(b"1")
            readable, _, _ = select.select([connection], [], [], 0.1)
            left = [each for each in left if each not in readable or each.recv(65536)]

    return talk


def silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


@pytest.mark.parametrize(
    ("talk", "code", "why"),
    [
        (says("200 OK", "<html><body>Welcome</body></html>"), "storage_not_s3", "its answer to a request for a list is not one"),
        (says("200 OK", "Welcome & hello <b>"), "storage_not_s3", "it answers with a web page"),
        (says("404 Not Found", "<html><body>nginx</body></html>"), "storage_not_s3", "it answers with a web page"),
        (says("401 Unauthorized", "", "text/plain"), "storage_not_s3", "it answers with status 401 and no error of S3"),
        (says("403 Forbidden", "no", "text/plain"), "storage_not_s3", "it answers with status 403 and no error of S3"),
        (says("503 Busy", xml("SlowDown"), "application/xml"), "storage_unreachable", "it answers with status 503"),
        (says("500 Broken", "oops", "text/plain"), "storage_unreachable", "it answers with status 500"),
        (
            says("400 Bad", xml("InvalidArgument<script>"), "application/xml"),
            "storage_not_s3",
            "it answers with status 400 and no error of S3",
        ),
        (says("400 Bad", xml("MethodNotAllowed"), "application/xml"), "storage_not_s3", "it refuses with MethodNotAllowed"),
        (lambda connection: connection.sendall(b"220 smtp.example.org ESMTP\r\n"), "storage_not_s3", "its answer cannot be read"),
        (lambda _connection: None, "storage_unreachable", "it closed the connection"),
        (silent, "storage_unreachable", "it did not answer in time"),
        (stalled, "storage_unreachable", "it did not answer in time"),
        (endless, "storage_not_s3", "its answer does not end"),
    ],
)
def test_what_is_no_store(talk: Talk, code: str, why: str) -> None:
    with listener(talk) as port:
        patience = 0.5 if "in time" in why else 20  # whoever answers may be late on a busy machine
        error = failure(storage(f"http://127.0.0.1:{port}"), key(), S3(connect_seconds=20, read_seconds=patience))
    assert (error.code, error.params["why"]) == (code, why)


@pytest.mark.parametrize(
    ("scheme", "first"),
    [
        ("http", b""),
        ("http", b"HTTP/1.1 200 OK\r\nX-Some: "),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n<a>"),
        ("https", b"HTTP/1.1 200 OK\r\nX-Some: "),
    ],
    ids=["status line", "header", "body", "TLS"],
)
def test_an_answer_that_drips_for_ever(scheme: str, first: bytes, tmp_path: Path) -> None:
    """Each byte comes well within the time-out, wherever in the answer it is."""
    context = tls(tmp_path)
    with listener(drips(first), context if scheme == "https" else None) as port:
        store = S3(ca_file=tmp_path / "cert.pem", connect_seconds=2, read_seconds=2, probe_seconds=1)
        began = time.monotonic()
        error = failure(storage(f"{scheme}://localhost:{port}"), key(), store)
        assert time.monotonic() - began < DRIPS_SECONDS
    assert (error.code, error.params["why"]) == ("storage_unreachable", "it did not answer in time")


def test_a_store_that_turns_slow_at_the_first_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be left behind is tried to be removed, in a time that is bounded as well."""
    monkeypatch.setattr("backend.adapters.s3.CLEAN_SECONDS", 1)
    heard: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        heard.append(connection.recv(65536, socket.MSG_PEEK)[:6])
        listed = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        (says("200 OK", listed, "application/xml") if heard[-1].startswith(b"GET") else drips(b"HTTP/1.1 200"))(connection)

    began = time.monotonic()
    with listener(talk) as port:
        error = failure(storage(f"http://127.0.0.1:{port}"), key(), S3(connect_seconds=2, read_seconds=2, probe_seconds=3))
        assert time.monotonic() - began < DRIPS_SECONDS
    assert (error.code, error.params["why"]) == ("storage_unreachable", "it did not answer in time")
    assert (heard[0][:3], heard[1][:3], heard[-1]) == (b"GET", b"PUT", b"DELETE")


def test_a_name_with_many_addresses_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would be tried for the whole time of a connection."""
    look_up = socket.getaddrinfo

    def many(host: str, port: int, *more: int) -> list[tuple[object, ...]]:
        hosts = [f"127.0.0.{number}" for number in range(2, 60)] if host == "many.invalid" else [host]
        return [place for each in hosts for place in look_up(each, port, *more)]

    with socket.create_server(("0.0.0.0", 0), backlog=0) as full, contextlib.ExitStack() as waiting:  # noqa: S104 (any loopback address)
        port = full.getsockname()[1]
        for _ in range(8):  # its queue is full: the kernel answers nobody more
            filler = waiting.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        monkeypatch.setattr(socket, "getaddrinfo", many)
        began = time.monotonic()
        error = failure(storage(f"http://many.invalid:{port}"), key(), S3(connect_seconds=0.4, read_seconds=1, probe_seconds=1))
        assert time.monotonic() - began < 15, "all of them would take 23"
    assert (error.code, error.params["why"]) == ("storage_unreachable", "it did not answer in time")


def test_a_name_of_which_one_address_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo
    with listener(says("403 Forbidden", xml("InvalidAccessKeyId"), "application/xml")) as port:
        both = [*look_up("127.0.0.2", port, type=socket.SOCK_STREAM), *look_up("127.0.0.1", port, type=socket.SOCK_STREAM)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more: both if host == "two.invalid" else look_up(host, *more))
        assert failure(storage(f"http://two.invalid:{port}"), key()).code == "storage_key_unknown"


@pytest.mark.parametrize(
    ("text", "body", "code"),
    [
        ("403 Forbidden", "RequestTimeTooSkewed", "storage_clock"),
        ("403 Forbidden", "InvalidAccessKeyId", "storage_key_unknown"),
        ("403 Forbidden", "QuotaExceeded", "storage_full"),
        ("400 Bad", "AuthorizationHeaderMalformed", "storage_region_wrong"),
        ("404 Not Found", "NoSuchBucket", "storage_bucket_missing"),
        ("403 Forbidden", "AccessDenied", "storage_forbidden"),
    ],
)
def test_errors_that_are_hard_to_get_from_a_real_store(text: str, body: str, code: str) -> None:
    with listener(says(text, xml(body), "application/xml")) as port:
        assert failure(storage(f"http://127.0.0.1:{port}"), key()).code == code


def test_nobody_there() -> None:
    (port,) = free_ports(1)
    refused = failure(storage(f"http://127.0.0.1:{port}"), key())
    assert (refused.code, refused.params["why"]) == ("storage_unreachable", "nobody listens there")
    unknown = failure(storage("http://no-such-host.invalid"), key())
    assert (unknown.code, unknown.params["why"]) == ("storage_unreachable", "its name is not known")


@pytest.mark.parametrize("url", ["https://[a2fCD]:87082/-", "http://127.0.0.1:99999"])
def test_an_address_that_is_none(url: str) -> None:
    assert failure(storage(url), key()).code in {"storage_not_s3", "storage_unreachable"}


def test_http_and_https_mixed_up(tmp_path: Path) -> None:
    context = tls(tmp_path)
    with listener(says("200 OK"), context) as port:
        plain_to_tls = failure(storage(f"http://127.0.0.1:{port}"), key())
    with listener(says("400 Bad Request", "no TLS here")) as port:
        tls_to_plain = failure(storage(f"https://127.0.0.1:{port}"), key())
    assert plain_to_tls.code in {"storage_not_s3", "storage_unreachable"}
    assert (tls_to_plain.code, tls_to_plain.params["why"]) == (
        "storage_not_s3",
        "it does not speak TLS; perhaps its address begins with http",
    )


def test_a_certificate_that_is_not_trusted_and_one_that_is(tmp_path: Path) -> None:
    context = tls(tmp_path)
    with listener(says("403 Forbidden", xml("InvalidAccessKeyId"), "application/xml"), context) as port:
        url = f"https://localhost:{port}"
        untrusted = failure(storage(url), key())
        trusted = failure(storage(url), key(), S3(ca_file=tmp_path / "cert.pem"))
    assert (untrusted.code, untrusted.params["why"]) == ("storage_unreachable", "its TLS certificate is not trusted")
    assert trusted.code == "storage_key_unknown"


def test_unless_told_otherwise_it_trusts_whom_the_operating_system_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = tls(tmp_path)
    monkeypatch.setattr(trust, "SYSTEM_LISTS", (str(tmp_path / "of-another-system"), str(tmp_path / "cert.pem"), "/dev/null"))
    with listener(says("403 Forbidden", xml("InvalidAccessKeyId"), "application/xml"), context) as port:
        assert failure(storage(f"https://localhost:{port}"), key()).code == "storage_key_unknown"


def test_no_checksum_is_sent_and_the_account_s_own_files_have_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[default]\nendpoint_url = http://127.0.0.1:1\nregion = xx\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKOFTHESERVICE")
    monkeypatch.setenv("AWS_PROFILE", "of-who-started-it")
    heard: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        heard.append(connection.recv(65536))
        body = '<?xml version="1.0"?><ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>'
        if heard[-1].startswith(b"PUT"):
            return (
                says("403 Forbidden", xml("AccessDenied"), "application/xml")(connection)
                if False
                else connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            )
        return connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())

    with listener(talk) as port:
        failure(storage(f"http://127.0.0.1:{port}"), key())
    requests = b"".join(heard).lower()
    assert b"put /some-bucket/mlflow/k3v9x2m7q4ab/.aihub-probe-" in requests  # path-style
    assert b"x-amz-checksum" not in requests
    assert b"x-amz-trailer" not in requests
    assert b"us-east-1/s3/aws4_request" in requests
    assert b"akoftheservice" not in requests


def test_a_code_of_the_store_cannot_forge_a_message() -> None:
    target = Target(storage=storage("http://s3"), access_key_id="AK")
    answer = {"Error": {"Code": "Bad\n<b>Code"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    assert from_answer(answer, target, "list").params["why"] == "it refuses with BadbCode"


def tls(folder: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate of its own for localhost."""
    private, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
