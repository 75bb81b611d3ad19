"""What stands for the service in the tests of the console and of mlwf answers as the service's own models have it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlwf.client import Client, ServiceError

from backend.api import answers
from tests.console.fake_service import FakeService as ConsoleService
from tests.mlwf.fake_service import start_fake_service

FUTURE = "a_field_of_the_future"
CREATE = {"group": "gaa50000", "env_name": "new", "bucket": "wine-models", "access_key_id": "AK", "secret_access_key": "wrong"}
TOKEN = {"seconds": 900, "name": ""}
LEASE = {"seconds": 900, "at_end": "keep", "note": ""}
WINE = "/servers/gaa50000/wine"


class Asking(Client):
    """`asked` is held against a model of the service's; what a later version may add is not looked at."""

    def asked(self, model: type[answers.Answer], method: str, path: str, body: Any = None, **query: str) -> Any:
        answer = self._request(method, path, body=body, query=query)
        assert set(answer) - set(model.model_fields) <= {FUTURE}
        for each in (answer, *answer.get("servers", ())):
            each.pop(FUTURE, None)
        return model.model_validate(answer)


@pytest.fixture
def console() -> Iterator[Asking]:
    with tempfile.TemporaryDirectory(prefix="con", dir="/tmp") as folder:
        fake = ConsoleService(socket=Path(folder, "s"), area=Path(folder))
        fake.start()
        fake.add("gaa50000", "wine")
        with Asking(f"unix://{fake.socket}") as client:
            yield client
        fake.stop()


@pytest.fixture
def tools() -> Iterator[Asking]:
    fake = start_fake_service()
    fake.add("gaa50000", "wine")
    with Asking(fake.address) as client:
        yield client
    fake.stop()


@pytest.fixture(params=["console", "tools"])
def either(request: pytest.FixtureRequest) -> Asking:
    found: Asking = request.getfixturevalue(request.param)
    return found


def test_what_is_read(either: Asking) -> None:
    either.asked(answers.Me, "GET", "/me")
    assert len(either.asked(answers.ServerList, "GET", "/servers").servers) == 1
    either.asked(answers.ServerView, "GET", WINE)


def test_what_is_made(either: Asking) -> None:
    made = either.asked(answers.TokenMade, "POST", f"{WINE}/tokens", TOKEN)
    either.asked(answers.TokenList, "GET", f"{WINE}/tokens")
    either.asked(answers.TokenView, "DELETE", f"{WINE}/tokens/{made.token.id}")


def test_what_takes_time(either: Asking) -> None:
    for method, path, body in (("POST", f"{WINE}/stop", None), ("DELETE", WINE, None), ("POST", "/servers", CREATE)):
        begun = either.asked(answers.OperationView, method, path, body)
        either.asked(answers.OperationView, "GET", f"/operations/{begun.id}")
    either.asked(answers.ServerList, "GET", "/servers", deleted="true")


def test_leases_and_health(tools: Asking) -> None:
    tools.asked(answers.LeaseView, "PUT", f"{WINE}/leases/job-1", LEASE)
    assert len(tools.asked(answers.ServerView, "GET", WINE).leases) == 1
    tools.asked(answers.LeaseList, "DELETE", f"{WINE}/leases/job-1")
    tools.asked(answers.Health, "GET", "/health")


def test_a_ticket(either: Asking) -> None:
    either.asked(answers.TicketView, "POST", f"{WINE}/tickets")


def test_a_refusal(either: Asking) -> None:
    with pytest.raises(ServiceError) as refused:
        either.asked(answers.ServerView, "GET", "/servers/gaa50000/none")
    assert (refused.value.code, refused.value.status) == ("no_such_server", 404)
