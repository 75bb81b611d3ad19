"""The OpenAPI document, and requests made up from it by Schemathesis against the real application: no 5xx, and every answer conforms."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance

from backend.api.app import bare_app
from backend.domain import BUCKET_NAME, ENV_NAME
from tests.service.edge.world import ALICE, World, make_world

_app: dict[str, Any] = {}


def _wsgi(environ: Any, start: Any) -> Any:
    return _app["world"].client.application(environ, start)


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as home:
        world = make_world(Path(home), port_last=20999)
        world.made(env_name="running-one")
        deleted = world.made(env_name="deleted-one")
        world.finish(world.client.delete("/api/v1/servers/gaa50000/deleted-one").json["id"], deleted_at=world.row(deleted).created_at)
        _app["world"] = world
        yield world
        world.registry.close()


schema = schemathesis.openapi.from_dict(bare_app().api_doc)
schema.app = _wsgi


@schema.parametrize()
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_it(case: Case, fuzzed: World) -> None:
    fuzzed.be(ALICE)
    # that each user stands there once is a rule that a schema cannot say
    case.call_and_validate(excluded_checks=[positive_data_acceptance] if case.path.endswith("/users") else [])


def test_the_document_is_served_exactly(world: World) -> None:
    assert world.get("/openapi.json") == bare_app().api_doc
    assert world.get("/openapi.json")["openapi"].startswith("3.1")


def test_the_paths_are_those_of_the_contract() -> None:
    found = {(method.upper(), path) for path, item in bare_app().api_doc["paths"].items() for method in item}
    server = "/api/v1/servers/{group}/{env}"
    assert found == {
        ("GET", "/api/v1/health"),
        ("GET", "/api/v1/me"),
        ("GET", "/api/v1/servers"),
        ("POST", "/api/v1/servers"),
        ("GET", server),
        ("DELETE", server),
        ("POST", f"{server}/start"),
        ("POST", f"{server}/stop"),
        ("POST", f"{server}/restore"),
        ("POST", f"{server}/upgrade"),
        ("POST", f"{server}/rollback"),
        ("PUT", f"{server}/size"),
        ("PUT", f"{server}/users"),
        ("PUT", f"{server}/storage"),
        ("PUT", f"{server}/leases/{{lease_id}}"),
        ("DELETE", f"{server}/leases/{{lease_id}}"),
        ("POST", f"{server}/tickets"),
        ("GET", f"{server}/tokens"),
        ("POST", f"{server}/tokens"),
        ("DELETE", f"{server}/tokens/{{token_id}}"),
        ("GET", "/api/v1/operations/{id}"),
    }


def test_the_document_has_the_patterns() -> None:
    create = bare_app().api_doc["components"]["schemas"]["ServerCreate"]["properties"]
    assert create["env_name"]["pattern"] == ENV_NAME
    assert create["bucket"]["pattern"] == BUCKET_NAME
    assert create["secret_access_key"]["writeOnly"] is True


def test_no_page_of_another_site(world: World) -> None:
    for path in ("/openapi", "/openapi/", "/openapi/swagger", "/openapi/openapi.json", "/static/x"):
        assert world.client.get(path).status_code == 404
