"""MLflow's own lists of routes against nginx's rules: a version that brings a way to start a job, say, does not pass unseen."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import requests

from tests.support.box import ROOT, Box, environment

pytestmark = pytest.mark.box
# Run with MLflow's interpreter: every route of both halves of its server.
LIST_CODE = r"""
import json, os
os.environ.update(_MLFLOW_STATIC_PREFIX="/mlflow", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="true", MLFLOW_ENABLE_AI_GATEWAY="true")
from mlflow.server import app as older
from mlflow.server.fastapi_app import app as newer
def walk(routes, before):
    for route in routes:
        if hasattr(route, "original_router"):
            yield from walk(route.original_router.routes, before + route.include_context.prefix)
        elif hasattr(route, "methods"):
            yield before + route.path, route.methods
found = {path: set(methods) for path, methods in walk(newer.routes, "")}
for rule in older.url_map.iter_rules():
    found.setdefault(rule.rule, set()).update(rule.methods)
print(json.dumps({path: sorted(methods - {"HEAD", "OPTIONS"}) for path, methods in found.items()}))
"""
SUSPECT = re.compile("job|invo[kc]|assistant|gateway", re.IGNORECASE)
# What is suspect by its name alone and reaches MLflow on every server: the path, and why that is as it should be.
HARMLESS: dict[str, str] = {}


class Route(NamedTuple):
    path: str
    methods: tuple[str, ...]

    @property
    def filled(self) -> str:
        """With something in the place of each parameter, below the prefix: an older version has some routes outside of it."""
        path = re.sub(r"\{[^}]*\}|<[^>]*>", "x", self.path)
        return path if path.startswith("/mlflow/") else f"/mlflow{path}"

    @property
    def kind(self) -> str:
        return next((kind for kind in ("assistant", "gateway") if kind in self.path), "jobs")


@pytest.fixture(scope="module", params=sorted(each.name for each in (ROOT / "tracking_server" / "versions").iterdir()))
def suspects(request: pytest.FixtureRequest) -> list[Route]:
    """Of one locked version."""
    python = environment(request.param) / "bin" / "python"
    done = subprocess.run([python, "-W", "ignore", "-c", LIST_CODE], capture_output=True, text=True, check=True, cwd="/tmp")
    routes = [Route(path, tuple(methods)) for path, methods in json.loads(done.stdout.splitlines()[-1]).items()]
    assert len(routes) > 300, "both halves were walked"
    found = [route for route in routes if SUSPECT.search(route.path)]
    assert {route.kind for route in found} == {"assistant", "gateway", "jobs"}
    return found


def refused(box: Box, routes: list[Route], auth: tuple[str, str] | None) -> set[str]:
    """The paths of those that nginx itself refuses, whatever the method. Without `auth`: what is not refused ends at the guard's 401."""

    def answers(route: Route) -> Iterator[bool]:
        for method in route.methods:
            answer = requests.request(method, box.origin + route.filled, auth=auth, json=None if method == "GET" else {}, timeout=60)
            assert auth or answer.status_code in (401, 403), (route, answer.text)
            yield answer.status_code == 403 and "does not offer this part" in answer.text

    found = {route.path: set(answers(route)) for route in routes}
    assert all(len(said) == 1 for said in found.values()), found
    return {path for path, said in found.items() if said == {True}}


def test_each_route_of_jobs_assistant_and_gateway_is_refused_or_named(box: Box, suspects: list[Route]) -> None:
    assert {route.path for route in suspects} - refused(box, suspects, box.auth) == {route.path for route in suspects} & set(HARMLESS)
    for route in suspects:
        if not route.path.startswith("/mlflow/"):
            assert requests.get(box.origin + route.path, auth=box.auth, timeout=60).status_code == 404, "nothing is outside the prefix"


@pytest.mark.parametrize(("setting", "opened"), [("genai_jobs", "jobs"), ("allow_gateway", "gateway")])
def test_a_setting_opens_its_own_routes_and_no_others(
    own_box: Callable[..., Box], suspects: list[Route], setting: str, opened: str
) -> None:
    box = own_box(**{"genai_jobs": False, "allow_gateway": False, setting: True})
    box.start()
    assert refused(box, suspects, None) == {route.path for route in suspects if route.kind != opened} - set(HARMLESS)
