"""What `aihub check` says of the containers' networks."""

from dataclasses import replace
from pathlib import Path

from backend.checks import containers as container_checks
from backend.settings import Settings


def test_check_says_that_containers_have_no_dns_server(tmp_path: Path):
    containers = Settings(
        state_dir=tmp_path, runtime="docker", resolvers=(), endpoint_url="http://192.0.2.1:9000", egress=("10.9.0.0/16:443",)
    )
    for changes, state in (
        ({}, "ok"),
        ({"endpoint_url": "https://s3.example.org"}, "failure"),
        ({"egress": ("db.example.org:5432",)}, "failure"),
        ({"egress": ("db.example.org:5432",), "resolvers": ("192.0.2.53",)}, "ok"),
    ):
        (found,) = container_checks.resolvers(replace(containers, **changes))
        assert (found.state, bool(found.cure)) == (state, state == "failure")
    assert list(container_checks.resolvers(replace(containers, runtime="process"))) == []
