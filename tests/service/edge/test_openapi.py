"""The OpenAPI document, and requests made up from it by Schemathesis against the real application: no 5xx, and every answer conforms."""

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import positive_data_acceptance

from backend.api.app import bare_app
from backend.domain import BUCKET_NAME, ENV_NAME, Status
from backend.registry.models import now
from tests.service.edge.world import ALICE, GROUP, World, fake_environment, make_world

_app: dict[str, Any] = {}
NEWER = "3.18.0"
RULES_THAT_NO_SCHEMA_SAYS = ("/servers", "/storage", "/users")
"""Of what is sent there: a bucket's name is no IP address, an endpoint's host and port can be, each user stands there once."""


@dataclass(frozen=True)
class Fuzzed:
    """The service, and what there is for requests to find."""

    world: World
    found: Mapping[str, str]
    before: Path

    def as_before(self) -> None:
        """The registry is again as every case finds it, whatever the one before did."""
        assert self.world.registry.path is not None
        with closing(sqlite3.connect(self.before)) as kept, closing(sqlite3.connect(self.world.registry.path)) as registry:
            kept.backup(registry)


def _wsgi(environ: Any, start: Any) -> Any:
    return _app["world"].client.application(environ, start)


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Fuzzed]:
    with tempfile.TemporaryDirectory() as home:
        world = make_world(Path(home), port_last=20999)
        _app["world"] = world
        before = Path(home, "before.db")
        found = _things_to_find(world)
        with closing(sqlite3.connect(before)) as kept, closing(sqlite3.connect(str(world.registry.path))) as registry:
            registry.backup(kept)
        yield Fuzzed(world, found, before)
        world.registry.close()


def _things_to_find(world: World) -> dict[str, str]:
    """A server that runs and can be rolled back, with a lease and a token, one that is deleted, an operation; as requests name them."""
    fake_environment(world.service.settings.envs_dir, NEWER)
    tomorrow = now() + timedelta(days=1)
    created = world.create(env_name="running-one")
    users = [{"name": "alice", "bcrypt": "$2b$04$"}]
    world.finish(created["id"], users=users, previous_version="3.17.1", previous_revision="abc", previous_until=tomorrow)
    path = f"/api/v1/servers/{GROUP.name}"
    token = world.client.post(f"{path}/running-one/tokens", json={"seconds": 900})
    assert token.json is not None
    assert world.client.put(f"{path}/running-one/leases/job-1", json={"seconds": 900}).status_code == 200
    deleted = world.made(env_name="deleted-one")
    deletion = world.client.delete(f"{path}/deleted-one")
    assert deletion.json is not None
    world.finish(deletion.json["id"], status=Status.DELETED, deleted_at=now(), restorable_until=tomorrow)
    return {
        "group": GROUP.name,
        "lease_id": "job-1",
        "token_id": token.json["token"]["id"],
        "id": created["id"],
        "mlflow_version": NEWER,
        "size": world.service.settings.default_size,
        "server_id": deleted,
    }


@pytest.fixture
def answers() -> Iterator[Counter[int]]:
    """How often each status was the answer to one operation's cases, which are one test: at its end some have been let through."""
    found: Counter[int] = Counter()
    yield found
    assert any(200 <= status < 300 for status in found), f"no case got behind the refusals: {dict(found)}"


schema = schemathesis.openapi.from_dict(bare_app().api_doc)
schema.app = _wsgi


@schema.parametrize()
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_it(case: Case, fuzzed: Fuzzed, answers: Counter[int]) -> None:
    fuzzed.world.be(ALICE)
    unsaid = [positive_data_acceptance] if case.path.endswith(RULES_THAT_NO_SCHEMA_SAYS) else []
    found = {**fuzzed.found, "env": "deleted-one" if case.path.endswith("/restore") else "running-one"}
    for known in ({}, found):  # as a stranger asks, then as a member
        fuzzed.as_before()
        _name(case, known)
        answers[case.call_and_validate(excluded_checks=unsaid).status_code] += 1


def _name(case: Case, known: Mapping[str, str]) -> None:
    """The case asks for what is known. What is wrong in it on purpose stays so."""
    assert case.meta is not None
    places = {ParameterLocation.PATH: case.path_parameters, ParameterLocation.QUERY: case.query, ParameterLocation.BODY: case.body}
    for place, held in places.items():
        if isinstance(held, dict) and not case.meta.is_negative_at(place):
            held.update({name: known[name] for name in held if name in known and held[name] is not None})


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
