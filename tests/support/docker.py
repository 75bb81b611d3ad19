"""A real Docker daemon for heavy tests: the one of `bin/dockerd` that runs already, else one that is started and stopped here.

Needs root and Debian's docker.io and mmdebstrap (`bin/dockerd` installs them). `AIHUB_DOCKER_DIR` names the folder of a daemon that runs;
by default that is /tmp/aihub-docker. A test makes its own containers, named or labelled as its own, and removes them.
"""

import contextlib
import os
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD_BEHIND = {
    **dict.fromkeys(("http_proxy", "https_proxy"), "http://not-in-the-image.invalid:3128"),
    "no_proxy": "org,ubuntu.com",  # where the packages of Debian, PyPI and Ubuntu are
    "PIP_INDEX_URL": "https://pypi.org/simple",
}
"""What a site may set while an image is built; nobody asks that proxy. Not where this machine has its own."""
DOCKERD = ROOT / "bin" / "dockerd"
SECONDS = 300.0


class DockerError(Exception):
    """A command of docker's or of `bin/dockerd` failed; the text is what it said."""


@dataclass(frozen=True)
class Docker:
    """A running daemon. `home`: its folder, with `docker.sock` in it. `programs`: a folder with another Docker than the machine's.
    `beside`: the daemon that makes its images, and whose bridge is there also while no container runs.
    """

    home: Path
    programs: Path | None = None
    beside: "Docker | None" = None

    @property
    def host(self) -> str:
        """For DOCKER_HOST and for the SDK's `base_url`."""
        return f"unix://{self.home}/docker.sock"

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, for commands that call docker."""
        return {**os.environ, **with_programs(self.programs), "DOCKER_HOST": self.host}

    def run(self, *argv: str, seconds: float = SECONDS) -> str:
        """`docker ARGV…`; what it wrote, without the last line break. Raises DockerError."""
        return _run("docker", *argv, environment=self.environment, seconds=seconds).rstrip("\n")

    def base_image(self, release: str = "bookworm") -> str:
        """The name of a Debian or Ubuntu image, made by `bin/dockerd base` when it is not there (20 s the first time on a machine)."""
        _run(str(DOCKERD), "base", str(self.home), release)
        return f"aihub-base:{release}"

    def box_image(self, version: str) -> str:
        """The image of the tracking servers, made of the sources as they are now (minutes the first time, seconds when all is cached)."""
        if self.beside is None and not os.environ.get(
            "AIHUB_IMAGE_AS_IS"
        ):  # the variable is for who changes nothing in the image meanwhile
            self.build_box_image(version, self.base_image())
        return f"aihub-box:{version}"

    def build_box_image(self, version: str, base: str, *tag: str, **site: str) -> None:
        """On that base image; called `tag`, else as admins call it. `site`: what the site sets for it, in place of BUILD_BEHIND."""
        behind = site or ({} if BUILD_BEHIND.keys() & os.environ.keys() else BUILD_BEHIND)
        given = {**self.environment, "BASE": base, "SITE_CA": certificates(), **behind}
        _run(str(ROOT / "tracking_server" / "build-image"), version, *tag, environment=given, seconds=900)


def certificates() -> str:
    """The file of those that this machine trusts: of a proxy between here and the packages, too."""
    return ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"


@contextlib.contextmanager
def running_docker() -> Iterator[Docker]:
    """The daemon that runs already, or a new one for the time of the context."""
    shared = Path(os.environ.get("AIHUB_DOCKER_DIR", "/tmp/aihub-docker"))
    if subprocess.run([DOCKERD, "status", shared], capture_output=True, check=False).returncode == 0:
        yield Docker(shared)
        return
    with own_docker() as docker:
        yield docker


@contextlib.contextmanager
def own_docker(programs: Path | None = None) -> Iterator[Docker]:
    """A daemon for this context alone, to be stopped and started at will (`bin/dockerd stop FOLDER`). It has no images."""
    home = Path(tempfile.mkdtemp(prefix="dockerd-", dir="/tmp"))
    docker = Docker(home, programs)
    try:
        _run(str(DOCKERD), "start", str(home), environment=docker.environment)
        yield docker
    finally:
        _run(str(DOCKERD), "remove", str(home))


@contextlib.contextmanager
def in_place_of(docker: Docker, image: str, *, programs: Path | None = None) -> Iterator[Docker]:
    """A daemon of its own with that image, while the other one rests: two would write the same iptables chains."""
    with tempfile.TemporaryDirectory(prefix="image-", dir="/tmp") as folder:
        docker.run("save", "--output", f"{folder}/image.tar", image)
        _run(str(DOCKERD), "stop", str(docker.home))
        try:
            with own_docker(programs) as own:
                own.run("load", "--quiet", "--input", f"{folder}/image.tar")
                yield own
        finally:
            _run(str(DOCKERD), "start", str(docker.home))


def newer_programs() -> Path:
    """A newer Docker than Debian 12's (20 s the first time on a machine)."""
    return Path(_run(str(ROOT / "bin" / "newer-docker"), "/var/cache/aihub/newer-docker").splitlines()[-1])


def with_programs(folder: Path | None) -> dict[str, str]:
    """What `bin/dockerd` and docker's own command take another Docker from."""
    return {} if folder is None else {"PATH": f"{folder}:{os.environ['PATH']}"}


def _run(*argv: str, environment: dict[str, str] | None = None, seconds: float = SECONDS) -> str:
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise DockerError(f"{' '.join(argv)} ended with status {done.returncode}: {(done.stdout + done.stderr).strip()[-3000:]}")
    return done.stdout
