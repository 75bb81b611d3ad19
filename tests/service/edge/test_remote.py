"""Callers on other hosts: MUNGE and API tokens, each on its own listener, through the TLS nginx of deploy/."""

import json
import os
import pwd
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from mlwf.client import Client, ServiceError, ServiceUnavailable
from mlwf.errors import MlwfError, WrongUseError
from mlwf.wire.connection import connection
from mlwf.wire.munge_payload import payload

from backend.checks.service import other_hosts
from backend.domain import Caller
from backend.errors import ServiceError as ServiceFailure
from backend.munge import Unmunge
from backend.registry.database import Registry
from backend.settings import Settings
from backend.wishes.api_tokens import ApiTokens
from demo.ports import free_ports
from tests.service.edge.live import Live, live_service, until
from tests.support.munge import credential, munged, new_key
from tests.support.tls import Authority, configuration, nginx

ME = os.geteuid()
NOBODY = pwd.getpwnam("nobody").pw_uid
needs_root = pytest.mark.skipif(ME != 0, reason="only root can become somebody else")
NONE = Path("/dev/null/none")


@dataclass
class Remote:
    """The service, and what a client on another host has: an address, a CA, the realm's munged."""

    live: Live
    authority: Authority
    key: bytes
    socket: Path
    munge_port: int
    munge_tls: int
    token_port: int
    token_tls: int
    tls: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"https://localhost:{self.munge_tls}"

    def environment(self, **changes: str) -> dict[str, str]:
        given = {
            "PATH": os.environ["PATH"],
            "MLWF_SERVICE": self.url,
            "MLWF_CA_FILE": str(self.authority.ca_file),
            "MLWF_MUNGE_UID": str(ME),
            "MLWF_MUNGE_SOCKET": str(self.socket),
            "HOME": "/dev/null",
        }
        return {name: value for name, value in {**given, **changes}.items() if value}

    def client(self, **changes: str) -> Client:
        return Client.from_environment(self.environment(**changes), language="en", timeout=20)

    def with_token(self, text: str, **changes: str) -> Client:
        return self.client(MLWF_SERVICE=f"https://localhost:{self.token_tls}", MLWF_TOKEN=text, MLWF_MUNGE_UID="", **changes)

    def signed(self, *, method: str = "GET", target: str = "/api/v1/me", body: bytes = b"", **options: Any) -> str:
        text = payload(method=method, service=options.pop("service", self.url), target=target, body=body)
        return credential(options.pop("socket", self.socket), text, uid=options.pop("uid", ME), **options)

    def send(self, made: str, *, method: str = "GET", target: str = "/api/v1/me", body: bytes = b"") -> tuple[int, str]:
        """Status and code of a request as it is, past mlwf."""
        headers = {"Authorization": f"MUNGE {made}", "Content-Type": "application/json"}
        address = f"http://127.0.0.1:{self.munge_port}{target}"
        answer = requests.request(method, address, headers=headers, data=body, timeout=20)
        return answer.status_code, str(answer.json().get("code"))

    def token(self) -> str:
        """One of nobody's, as `aihub tokens create` makes it."""
        registry = Registry(f"sqlite:///{self.live.state}/registry.db")
        somebody = Caller(user="nobody", uid=NOBODY, groups=())
        text = ApiTokens(registry).create(user=somebody, days=1, note="", by=somebody)[1]
        registry.close()
        return text.reveal()


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder / "site")
    authority.issue()
    munge_port, munge_tls, token_port, token_tls = free_ports(4)
    key = new_key()
    listeners = {"munge_listen": f"127.0.0.1:{munge_port}", "token_listen": f"127.0.0.1:{token_port}"}
    file = configuration(
        folder,
        {
            "8443": f"127.0.0.1:{munge_tls}",
            "8444": f"127.0.0.1:{token_tls}",
            ":8441": f":{munge_port}",
            ":8442": f":{token_port}",
            "mlflow01.example.org": "localhost",
            "/etc/aihub/tls": str(authority.folder),
        },
    )
    with munged(key) as socket, live_service(**listeners, munge_url=f"https://localhost:{munge_tls}/", munge_socket=str(socket)) as live:
        live.start()
        with nginx(file, munge_tls) as tls:
            yield Remote(live, authority, key, socket, munge_port, munge_tls, token_port, token_tls, tls)


def test_the_check_sees_both_listeners_and_munge(remote: Remote) -> None:
    findings = {each["name"]: each["state"] for each in json.loads(remote.live.aihub("check", "--json", check=False).stdout)}
    assert [findings.get(name) for name in ("munge_listen", "token_listen", "MUNGE")] == ["ok"] * 3, findings
    registered = Settings(munge_listen=f"127.0.0.1:{free_ports(1)[0]}", munge_url="https://x", munge_socket=Path("/nonexistent/s"))
    found = other_hosts(registered)
    assert next(found).state == "warning"
    with pytest.raises(ServiceFailure, match="munge_failed"):
        next(found)


def test_the_configuration_is_one(remote: Remote) -> None:
    file = remote.authority.folder.parent / "nginx.conf"
    done = subprocess.run(["nginx", "-t", "-c", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


def test_mlwf_over_munge_and_tls(remote: Remote) -> None:
    with remote.client() as client:
        for _ in range(3):  # one connection, and each request signed for itself
            assert client.me().uid == ME
        assert client.servers(deleted=True) == []  # a query
        with pytest.raises(ServiceError) as refused:
            client.hold_lease("daemon", "no-such-server", "üb er", seconds=60)  # a body, and a path that is quoted
        assert refused.value.code in {"no_such_server", "invalid_request", "not_a_member"}
    assert f"user={pwd.getpwuid(ME).pw_name}" in remote.live.log


@needs_root
def test_another_uid_is_another_caller(remote: Remote) -> None:
    text = payload(method="GET", service=remote.url, target="/api/v1/me", body=b"")
    argv = [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "munge",
        f"--socket={remote.socket}",
        f"--restrict-uid={ME}",
    ]
    made = subprocess.run(argv, input=text, capture_output=True, text=True, check=True).stdout.strip()
    answer = requests.get(
        f"{remote.url}/api/v1/me", headers={"Authorization": f"MUNGE {made}"}, verify=str(remote.authority.ca_file), timeout=20
    )
    assert (answer.status_code, answer.json()["uid"], answer.json()["admin"]) == (200, NOBODY, False)


def test_a_credential_is_good_for_one_request(remote: Remote) -> None:
    made = remote.signed()
    assert remote.send(made)[0] == 200
    assert remote.send(made) == (401, "credential_replayed")


@pytest.mark.parametrize(
    ("signed", "sent"),
    [
        ({"method": "POST"}, {}),
        ({"target": "/api/v1/servers"}, {}),
        ({"target": "/api/v1/servers"}, {"target": "/api/v1/servers?all=true"}),
        ({"service": "https://elsewhere.example.org"}, {}),
        ({"body": b"{}"}, {}),
        (
            {"method": "POST", "target": "/api/v1/servers", "body": b"{}"},
            {"method": "POST", "target": "/api/v1/servers", "body": b'{"a":1}'},
        ),
    ],
)
def test_a_credential_for_another_request(remote: Remote, signed: dict[str, Any], sent: dict[str, Any]) -> None:
    assert remote.send(remote.signed(**signed), **sent) == (401, "credential_mismatch")


def test_what_is_no_credential_of_this_realm(remote: Remote) -> None:
    assert remote.send("MUNGE:nonsense:") == (401, "credential_refused")
    assert remote.send(remote.signed(uid=ME + 1)) == (401, "credential_for_other")
    anybody = subprocess.run(["munge", f"--socket={remote.socket}", "-s", "x"], capture_output=True, text=True, check=True).stdout.strip()
    assert remote.send(anybody) == (401, "credential_for_other")
    assert remote.send("") == (401, "credential_missing")
    answer = requests.get(f"http://127.0.0.1:{remote.munge_port}/api/v1/me", headers={"X-Forwarded-User": "root"}, timeout=20)
    assert answer.json()["code"] == "credential_missing"


def test_another_realm_and_other_clocks(remote: Remote) -> None:
    with munged() as elsewhere, pytest.raises(ServiceError) as refused:
        remote.client(MLWF_MUNGE_SOCKET=str(elsewhere)).me()
    assert refused.value.code == "credential_refused"
    assert "same MUNGE key" in str(refused.value)
    for clock in ("+1h", "-1h"):
        with munged(remote.key, clock=clock) as wrong, pytest.raises(ServiceError) as refused:
            remote.client(MLWF_MUNGE_SOCKET=str(wrong)).me()
        assert refused.value.code == "credential_clock"
        seconds = re.search(r"\((\d+) s between", str(refused.value))
        assert seconds is not None
        assert 3500 < int(seconds[1]) < 3700
        assert "NTP" in refused.value.cure


def test_what_may_fail_on_the_callers_host(remote: Remote, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, str], type[MlwfError], str]] = [
        ({"MLWF_MUNGE_SOCKET": "/nonexistent/s"}, ServiceUnavailable, "munged must run"),
        ({"PATH": str(tmp_path)}, MlwfError, "munge is not installed on this host"),
        ({"MLWF_MUNGE_UID": "no-such-user-here"}, ServiceUnavailable, "munge_uid must be a user"),
        ({"MLWF_MUNGE_UID": str(ME + 7)}, ServiceError, f"Set munge_uid to {ME}"),
        ({"MLWF_CA_FILE": ""}, ServiceUnavailable, "Set ca_file"),
        ({"MLWF_CA_FILE": "/nonexistent/ca"}, WrongUseError, "Correct ca_file"),
        ({"MLWF_CA_FILE": "ca"}, WrongUseError, "Write it from / or ~/ on."),
        ({"MLWF_MUNGE_UID": ""}, WrongUseError, "token_file"),
        ({"MLWF_SERVICE": f"https://127.0.0.1:{remote.munge_tls}"}, ServiceError, f"Use {remote.url} as the service's address"),
    ]
    for changes, kind, said in cases:
        with pytest.raises(kind) as failed:
            remote.client(**changes).me()
        assert said in str(failed.value), changes


def test_munged_of_the_service_is_down(remote: Remote) -> None:
    with pytest.raises(ServiceFailure) as failed:
        Unmunge(Path("/nonexistent/s")).decode(remote.signed())
    assert failed.value.code == "munge_failed"
    assert failed.value.failure.status == 503
    assert "/nonexistent/s" in str(failed.value.params["why"])


def test_of_what_munge_says_only_the_reason_is_told(remote: Remote) -> None:
    unmunge = Unmunge(Path("/nonexistent/s"))
    for fails in (unmunge.try_it, lambda: unmunge.decode(remote.signed())):
        with pytest.raises(ServiceFailure) as failed:
            fails()
        assert "munge:" not in str(failed.value.params["why"])


def test_the_command_over_munge_and_tls(remote: Remote, tmp_path: Path) -> None:
    """By the settings file of a user, as it is documented."""
    (tmp_path / ".config" / "mlwf").mkdir(parents=True)
    lines = {"service": remote.url, "ca_file": str(remote.authority.ca_file), "munge_uid": ME, "munge_socket": str(remote.socket)}
    (tmp_path / ".config" / "mlwf" / "settings.yml").write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    mlwf = str(Path(sys.executable).with_name("mlwf"))
    done = subprocess.run([mlwf, "server", "list", "--json"], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"servers": []}), done.stderr


def test_tokens(remote: Remote) -> None:
    made = remote.live.aihub("tokens", "create", "--user", "nobody", "--note", "laptop")
    text = made.stdout.strip()
    assert "for nobody, valid until" in made.stderr
    with remote.with_token(text) as client:
        assert (client.me().uid, client.me().admin) == (NOBODY, False)
    rows = json.loads(remote.live.aihub("tokens", "list", "--json").stdout)
    row = next(each for each in rows if each["id"] == text.split("_")[1])
    assert (row["user"], row["state"], row["note"]) == ("nobody", "good", "laptop")
    assert row["used_at"]
    assert text.split("_", 2)[2] not in (remote.live.state / "registry.db").read_bytes().decode("latin1")
    assert text.split("_", 2)[2] not in remote.live.log + remote.live.aihub("audit").stdout
    remote.live.aihub("tokens", "revoke", row["id"])
    with remote.with_token(text) as client, pytest.raises(ServiceError) as refused:
        client.me()
    assert (refused.value.status, refused.value.code) == (401, "token_revoked")
    actions = [(each["action"], each["env_name"]) for each in json.loads(remote.live.aihub("audit", "--json").stdout)]
    assert actions[:2] == [("revoke_token", f"{row['id']} of nobody"), ("create_token", f"{row['id']} of nobody")]


def test_each_listener_has_one_scheme(remote: Remote) -> None:
    text = remote.token()
    with pytest.raises(ServiceError) as refused:
        remote.client(MLWF_TOKEN=text).me()
    assert refused.value.code == "credential_missing"
    with pytest.raises(ServiceError) as refused:
        remote.client(MLWF_SERVICE=f"https://localhost:{remote.token_tls}").me()
    assert refused.value.code == "token_missing"
    status, me = remote.live.ask("GET", "/me", Authorization=f"Bearer {text}")
    assert (status, me["uid"]) == (200, ME)  # on the socket it is the kernel who says it


def test_tokens_that_are_none(remote: Remote) -> None:
    good = remote.token()
    for text in ("x", "aihub_0123456789ab_" + "A" * 43, good[:-1] + ("A" if good[-1] != "A" else "B"), good + "x", "aihub__"):
        with pytest.raises(ServiceError) as refused:
            remote.with_token(text).me()
        assert refused.value.code == "token_unknown", text
    assert remote.live.aihub("tokens", "create", "--user", "no-such-user-here", check=False).returncode == 1


def test_a_token_in_a_file(remote: Remote, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(remote.token() + "\n")
    file.chmod(0o640)
    environment = remote.environment(MLWF_SERVICE=f"https://localhost:{remote.token_tls}", MLWF_TOKEN_FILE=str(file))
    with pytest.raises(MlwfError, match="chmod 600"):
        connection(environment, site_file=NONE)
    file.chmod(0o600)
    with Client.to(connection(environment, site_file=NONE), language="en") as client:
        assert client.me().uid == NOBODY


def test_a_renewed_certificate_needs_no_restart(remote: Remote) -> None:
    def serial() -> int:
        import ssl

        from cryptography import x509

        return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", remote.munge_tls)).encode()).serial_number

    renewed = remote.authority.issue()
    assert serial() != renewed.serial_number
    remote.tls.send_signal(1)
    until(lambda: serial() == renewed.serial_number, what="the renewed certificate")
    assert remote.client().me().uid == ME


def test_expired(remote: Remote) -> None:
    made = remote.signed(ttl=1)
    began = time.time()
    until(lambda: time.time() > began + 2.2, what="the time")
    assert remote.send(made) == (401, "credential_clock")
