"""The name of an image in a container registry, as Docker reads it, and what helps where the registry does not give the image."""

import re
from dataclasses import dataclass

from mlwf.errors import WrongUseError
from mlwf.i18n import _

DOCKER_HUB = "docker.io"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
REFERENCE = re.compile(
    r"docker://(?:(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?)/)?(?P<name>[a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class DockerReference:
    host: str
    name: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> "DockerReference":
        """Raises WrongUseError."""
        match = REFERENCE.fullmatch(text)
        if not match:
            raise WrongUseError(
                _("{text} is not the address of a container image").format(text=repr(text)),
                cure=_("Write docker://[HOST[:PORT]/]NAME[:TAG], in lower-case letters."),
            )
        host, name = match["host"] or "", match["name"]
        if host and not re.search(r"[.:]|^localhost$", host):
            # As Docker reads it: without a dot or a port, the first part belongs to the name.
            host, name = "", f"{host}/{name}"
        if host in {"", "index.docker.io"}:
            host = DOCKER_HUB
        if host == DOCKER_HUB and "/" not in name:
            name = f"library/{name}"
        digest = match["digest"] or ""
        return cls(host, name, match["tag"] or ("" if digest else "latest"), digest)

    def pinned(self, digest: str) -> str:
        return f"docker://{self.host}/{self.name}@{digest}"


def registry_cure(status: int | None) -> str:
    """What helps where a registry answers with that; None: it does not answer."""
    if status is None:
        return _("Check the name and the network; on a node without internet name a file (docker-archive:, SIF) or use --offline.")
    if status in {401, 403}:
        return _("Log in with 'docker login' or set APPTAINER_DOCKER_USERNAME and APPTAINER_DOCKER_PASSWORD, and check the name.")
    if status == 429:
        return _("It limits what each user and each address may fetch: log in with 'docker login', or wait and try again.")
    if status >= 500:
        return _("Try again; if it happens again, tell the people who run the registry, or name a file (docker-archive:, SIF).")
    return _("Check the name and the tag.")


def tls_cure(*, trusted: bool) -> str:
    """What helps where no TLS comes about. `trusted`: it is not the certificate."""
    if trusted:
        return _("If the registry speaks plain HTTP, say so with --no-https; else check its address and port.")
    return _(
        "If its certificate is of the site's own CA, name that CA's file in REQUESTS_CA_BUNDLE (for the container tool: SSL_CERT_FILE)."
    )


def helper_cure(file: object) -> str:
    """What helps where Docker keeps the login in another program: to log in once more would lead here again."""
    return _(
        "The login is kept by the credential helper that {file} names, which this command does not ask: set APPTAINER_DOCKER_USERNAME and "
        "APPTAINER_DOCKER_PASSWORD."
    ).format(file=file)
