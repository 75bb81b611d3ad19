"""Images and a real Docker daemon: a base that it holds, or has saved, and the Dockerfile built by it."""

import json
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlwf.creating import create
from tests.mlwf.models import Models, answer_of
from tests.support.apptainer import CERTIFICATES, NOBODY, Ground, base_python
from tests.support.docker import Docker
from tests.support.docker_proxy import docker_proxy

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
# As bases for other programs are: with a user, an entry point, and modules of their own.
OF_A_SITE = f"""\
FROM base:1
COPY ca-certificates.crt {CERTIFICATES}
COPY six.py /modules/
ENV SSL_CERT_FILE={CERTIFICATES} PYTHONPATH=/modules
ENTRYPOINT ["/usr/bin/python3"]
USER {NOBODY}
"""
# All packages with their versions, and which Python runs. With -I: where the checkout lies in /tmp, a container sees the tests' PYTHONPATH.
LIST = (
    "import sys; from importlib.metadata import distributions as all; "
    "print(sys.version, sys.prefix, sorted((each.name, each.version) for each in all()))"
)


@pytest.fixture(scope="module")
def base(docker: Docker, ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base image in the daemon, with this machine's certificates, as a site would have it."""
    name = f"mlwf-test-{secrets.token_hex(4)}:1"
    context = tmp_path_factory.mktemp("context")
    (context / "Dockerfile").write_text(OF_A_SITE.replace("base:1", f"from-{name}"))
    shutil.copyfile(CERTIFICATES, context / "ca-certificates.crt")
    (context / "six.py").write_text("")
    identity = docker.run("load", "--quiet", "--input", str(ground.base)).rpartition(" ")[2]
    docker.run("tag", identity, f"from-{name}")
    docker.run("build", "--quiet", "--tag", name, str(context))
    yield name
    docker.run("rmi", "--force", name, f"from-{name}", "base:1")


@pytest.fixture
def daemon(docker: Docker) -> Iterator[str]:
    """DOCKER_HOST for the ordinary user, who may ask this daemon."""
    with docker_proxy(docker.home / "docker.sock") as proxy:
        shutil.chown(proxy.socket, NOBODY)
        yield proxy.host


def test_the_dockerfile_builds_an_equivalent_image_of_a_base_in_the_daemon(
    ground: Ground, models: Models, docker: Docker, base: str, daemon: str
) -> None:
    made = answer_of(create(ground, models.tiny(), "--no-test", "--json", base=f"docker-daemon:{base}", DOCKER_HOST=daemon))
    folder, named = Path(str(made["folder"])), f"built-{base}"
    inside = ground.run([ground.tool, "exec", folder / "container.simg", "python", "-I", "-c", LIST])
    assert inside.returncode == 0, inside.stderr
    assert inside.stdout.startswith(f"{base_python()} ")
    assert " /mlwf/env [('six', '1.17.0')]" in inside.stdout

    recipe = (folder / "Dockerfile").read_text()
    (wanted,) = re.findall(r"^FROM (base:[0-9a-f]{12})$", recipe, re.MULTILINE)
    identity = json.loads(docker.run("image", "inspect", base))[0]["Id"]
    assert f"content: {identity}\n" in recipe
    docker.run("tag", base, wanted)
    uv = ground.run([ground.python, "-c", "import uv; print(uv.find_uv_bin())"]).stdout.strip()
    shutil.copy2(uv, folder / "uv")
    try:
        docker.run("build", "--quiet", "--network", "host", "--tag", named, str(folder), seconds=600)
        assert docker.run("run", "--rm", "--network", "none", named, "python", "-I", "-c", LIST) == inside.stdout.strip()
        assert docker.run("run", "--rm", "--network", "none", named, "python", "-c", "import six; print(six.__version__)") == "1.17.0"
        assert (
            docker.run("run", "--rm", "--network", "none", named, "cat", "/model/MLmodel") == (folder / "model/MLmodel").read_text().strip()
        )
    finally:
        docker.run("rmi", "--force", wanted, named)


def test_a_base_that_the_daemon_does_not_have(ground: Ground, models: Models, daemon: str) -> None:
    told = create(ground, models.tiny(), "--no-test", base="docker-daemon:no-such-image:1", status=1, DOCKER_HOST=daemon)
    assert "The image no-such-image:1 cannot be read from the Docker daemon: the daemon answers 404" in told


def test_a_base_that_docker_has_saved(ground: Ground, models: Models, docker: Docker, base: str) -> None:
    archive = ground.home / "saved.tar"
    docker.run("save", "--output", str(archive), base)
    ground.give(archive)
    for source in (f"docker-archive:{archive}", f"docker-archive:{archive}:{base}"):
        made = answer_of(create(ground, models.tiny(), "--no-test", "--json", base=source))
        assert ground.run([ground.tool, "exec", str(made["image"]), "python", "-c", "import six"]).returncode == 0
    assert made["cached"], "the same file is the same base"
