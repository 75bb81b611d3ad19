"""A certificate authority made for one test, and nginx with the configuration that deploy/nginx holds."""

import datetime as dt
import ipaddress
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from demo.ports import LOOPBACK, free_ports, is_free
from tests.support.box import until

TEMPLATE = Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "aihub.conf"


class Authority:
    """A CA of its own; `ca_file` is what clients trust."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA of {folder.name}")])
        certificate = self._signed(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=0))
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.ca_file.chmod(0o644)

    def issue(self, host: str = "localhost", *addresses: str) -> x509.Certificate:
        """Write `fullchain.pem` and `privkey.pem` for that host, for loopback and for these addresses, as a renewal would."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(host), *(x509.IPAddress(ipaddress.ip_address(each)) for each in (LOOPBACK, *addresses))]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = self._signed(subject, key.public_key(), x509.SubjectAlternativeName(names))
        pem = serialization.Encoding.PEM
        (self.folder / "fullchain.pem").write_bytes(certificate.public_bytes(pem))
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / "privkey.pem").write_bytes(private)
        (self.folder / "privkey.pem").chmod(0o600)
        return certificate

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=1))
        return builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints)).sign(self._key, hashes.SHA256())


def configuration(folder: Path, replaced: dict[str, str]) -> Path:
    """An nginx.conf in `folder` around the template with a site's values put in. Each must be there."""
    text = TEMPLATE.read_text()
    for old, new in replaced.items():
        assert old in text, f"{old} is not in {TEMPLATE.name}"
        text = text.replace(old, new)
    (folder / "aihub.conf").write_text(text)
    main, temporary = _usual(folder)
    file = folder / "nginx.conf"
    file.write_text(main + f"http {{ access_log {folder}/access.log; {temporary} include {folder}/aihub.conf; }}\n")
    return file


@contextmanager
def in_front_of(url: str, authority: Authority, *addresses: str) -> Iterator[int]:
    """The port of loopback where an nginx passes https on to an object store. Its certificate is of that authority, and for these
    addresses, too, by which others come to that port.
    """
    folder, (port,) = authority.folder, free_ports(1)
    authority.issue("localhost", *addresses)
    pair = f"ssl_certificate {folder}/fullchain.pem; ssl_certificate_key {folder}/privkey.pem;"
    passed = f"client_max_body_size 0; location / {{ proxy_pass {url}; proxy_set_header Host $http_host; }}"
    main, temporary = _usual(folder)
    file = folder / "nginx.conf"
    file.write_text(f"{main}http {{ access_log off; {temporary} server {{ listen {LOOPBACK}:{port} ssl; {pair} {passed} }} }}\n")
    with nginx(file, port):
        yield port


def _usual(folder: Path) -> tuple[str, str]:
    """What every nginx.conf here begins with, and nginx's folders for its temporary files."""
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""
    return f"{user}daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn; events {{}}\n", temporary


@contextmanager
def nginx(file: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """nginx with that configuration, until it listens on `port`."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", "nginx", "-c", str(file), "-p", str(file.parent)], stdin=subprocess.DEVNULL
    )
    try:
        until(lambda: process.poll() is not None or not is_free(port), what="nginx")
        assert process.poll() is None, "nginx did not start"
        yield process
    finally:
        process.terminate()
        process.wait(20)
