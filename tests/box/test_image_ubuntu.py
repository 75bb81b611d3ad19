"""The image on Ubuntu 24.04, another base with another Python, as a site without a way out builds it; and one box of it at work.

What the site has: a forward proxy that asks for a login, the only thing that the build's network reaches; and a mirror of packages whose
certificate is of the site's own authority, for the index and for a part of Ubuntu's packages. The rest of these come by http.
"""

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.ports import free_ports
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import BUILD_BEHIND, Docker, DockerError, certificates
from tests.support.forward_proxy import ForwardProxy, forward_proxy
from tests.support.pod import Pod, running_pod
from tests.support.s3 import S3Store
from tests.support.tls import Authority, nginx

pytestmark = [
    pytest.mark.box,
    pytest.mark.heavy,
    pytest.mark.long,
    pytest.mark.containers,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(BUILD_BEHIND.keys() & os.environ.keys()), reason="this machine is behind a proxy itself"),
]
TAG = f"aihub-box-ubuntu:{MLFLOW_VERSION}"
BASE = "aihub-base:noble-of-a-site"
NETWORK = "aihub-test-no-way-out"
MIRROR = "packages.site.test"
UBUNTU = "archive.ubuntu.com"
# As admins may: main from Ubuntu by http, universe from the site's mirror.
SOURCES = f"""deb http://{UBUNTU}/ubuntu noble main
deb https://{MIRROR}/ubuntu noble universe
"""
# With a bundle of certificates that knows nothing of the site's, as many bases have.
SITES_BASE = """FROM {base}
RUN apt-get -qq update && apt-get -qq install -y --no-install-recommends ca-certificates
COPY sources.list /etc/apt/
"""
# Every command but `build` as it is; DOCKER is how admins name another builder.
BUILDER = f"""#!/bin/sh
if [ "$1" = build ]; then shift; set -- build --network {NETWORK} "$@"; fi
exec docker "$@"
"""
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr error; events {{}}
http {{
    access_log off; proxy_temp_path {folder}/proxy; client_body_temp_path {folder}/body;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/fullchain.pem; ssl_certificate_key {folder}/privkey.pem;
        proxy_http_version 1.1; proxy_max_temp_file_size 0;
        location /simple/ {{ proxy_pass https://pypi.org; proxy_ssl_server_name on; }}
        location /ubuntu/ {{ proxy_pass http://{ubuntu}; }}
    }}
}}
"""
ASK_THE_MIRROR = f"import urllib.request as u; print(u.urlopen('https://{MIRROR}/simple/uv/').status)"
GO_OUT = "import socket; socket.create_connection(('{address}', 80), 5)"


@dataclass
class Site:
    """`variables`: what its admin sets for the build."""

    proxy: ForwardProxy
    variables: dict[str, str]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Authority, int]]:
    authority = Authority(tmp_path_factory.mktemp("site"))
    authority.issue(MIRROR)
    (port,) = free_ports(1)
    file = authority.folder / "nginx.conf"
    file.write_text(NGINX.format(folder=authority.folder, port=port, ubuntu=UBUNTU))
    with nginx(file, port):
        yield authority, port


@pytest.fixture(scope="module")
def site(docker: Docker, mirror: tuple[Authority, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    authority, port = mirror
    folder = tmp_path_factory.mktemp("builder")
    builder = folder / "builder"
    builder.write_text(BUILDER)
    builder.chmod(0o755)
    trusted = folder / "site.pem"
    trusted.write_text(Path(certificates()).read_text() + authority.ca_file.read_text())
    docker.run("network", "create", "--internal", NETWORK)
    try:
        gateway = json.loads(docker.run("network", "inspect", NETWORK))[0]["IPAM"]["Config"][0]["Gateway"]
        with forward_proxy(gateway, {f"{MIRROR}:443": ("127.0.0.1", port)}) as proxy:
            index = f"https://{MIRROR}/simple"
            behind = {"http_proxy": proxy.url, "https_proxy": proxy.url, "PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index}
            yield Site(proxy, {"DOCKER": str(builder), "SITE_CA": str(trusted), **behind})
    finally:
        docker.run("network", "rm", NETWORK)


@pytest.fixture(scope="module")
def image(docker: Docker, site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    (folder / "sources.list").write_text(SOURCES)
    (folder / "Dockerfile").write_text(SITES_BASE.format(base=docker.base_image("noble")))
    proxy = f"http_proxy={site.proxy.url}"
    docker.run("build", "--quiet", "--network", NETWORK, "--build-arg", proxy, "--tag", BASE, str(folder))
    docker.build_box_image(MLFLOW_VERSION, BASE, TAG, **site.variables)
    return TAG


@pytest.fixture
def pod(docker: Docker, image: str, s3_store: S3Store, store_settings: dict[str, Any]) -> Iterator[Pod]:
    with running_pod(docker, image, s3_store, store_settings) as pod:
        yield pod


def in_the_image(docker: Docker, image: str, code: str, *options: str) -> str:
    """What Python says in the build's network."""
    return docker.run("run", "--rm", "--network", NETWORK, *options, "--entrypoint", "python3", image, "-c", code)


def test_all_that_the_build_fetches_goes_through_the_sites_proxy(docker: Docker, site: Site, image: str) -> None:
    # pip and uv are led to the files by the index; it is theirs to say where those are.
    assert set(site.proxy.asked) == {f"{UBUNTU}:80", f"{MIRROR}:443", "files.pythonhosted.org:443"}
    with pytest.raises(DockerError, match=r"timed out|Network is unreachable"):
        in_the_image(docker, image, GO_OUT.format(address=socket.gethostbyname(UBUNTU)))


def test_the_image_trusts_the_sites_authority_and_holds_nothing_else_of_the_site(docker: Docker, site: Site, image: str) -> None:
    assert in_the_image(docker, image, ASK_THE_MIRROR, "--env", f"https_proxy={site.proxy.url}") == "200"
    told = docker.run("history", "--no-trunc", image) + docker.run("image", "inspect", image)
    assert [word for word in ("_proxy", "INDEX_URL", "DEFAULT_INDEX", *site.proxy.words) if word in told] == []
    look = f"grep -rlE '{'|'.join([MIRROR, *site.proxy.words])}' /opt /root /etc /var /home /tmp; true"
    assert docker.run("run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", look) == "/etc/apt/sources.list"


def test_a_box_on_ubuntu_answers_stores_sleeps_and_wakes(docker: Docker, pod: Pod) -> None:
    ask = ". /etc/os-release; echo $ID $VERSION_ID; /opt/aihub/env/bin/python -V; nginx -v 2>&1"
    inside = docker.run("exec", pod.mlflow, "sh", "-c", ask)
    assert inside.splitlines()[0] == "ubuntu 24.04"
    assert inside.splitlines()[1].startswith("Python 3.12.")
    run = pod.box.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]["run_id"]
    path, body = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/big.bin", os.urandom(20 << 20)
    assert pod.box.request("PUT", path, data=body).status_code == 200
    pod.box.wait_state("asleep")
    assert pod.box.request("GET", path).content == body
    assert pod.box.api("GET", "runs/get", params={"run_id": run})["run"]["info"]["run_id"] == run
    with pytest.raises(DockerError, match="Read-only file system"):
        docker.run("exec", pod.mlflow, "touch", "/opt/aihub/x")
