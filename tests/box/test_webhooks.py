"""Whether MLflow's webhooks are sent, as a box's settings say."""

import json
import subprocess
from typing import Any

import pytest

from tests.box.parts import LEAST
from tests.support.box import MLFLOW_VERSION, OLDEST_VERSION, environment

pytestmark = pytest.mark.box
HOOK = "https://192.0.2.1/hook"
# MLflow's own delivery, but for the last call, which would go out, and the look whether the address is a public one.
CODE = """
import json, os, sys
from types import SimpleNamespace
import requests
asked, now = {}, []
requests.Session.post = lambda _session, url, **_options: now.append(url)
from tracking_server.mlflow_process import environment
from tracking_server.mlflow_process.plan import read_plan
from mlflow.entities.webhook import Webhook, WebhookAction, WebhookEntity, WebhookEvent
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils import validation
from mlflow.webhooks import delivery
validation._validate_hostname_resolves_to_public_ips = lambda *_arguments: None
event = WebhookEvent(WebhookEntity.REGISTERED_MODEL, WebhookAction.CREATED)
hook = Webhook("id", "hook", sys.argv[1], [event], 1, 1)
store = SimpleNamespace(list_webhooks_by_event=lambda *_arguments, **_options: PagedList([hook], None))
class Now:
    submit = staticmethod(lambda work, *arguments: work(*arguments))
delivery._webhook_delivery_executor = Now()
for name, document in json.load(sys.stdin).items():
    os.environ.pop("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", None)
    environment.apply(read_plan(json.dumps(document)))
    delivery.deliver_webhook(event=event, payload={"name": "wine"}, store=store)
    delivery.test_webhook(hook)
    asked[name], now[:] = list(now), []
print(json.dumps(asked))
"""


def plan(**settings: Any) -> dict[str, Any]:
    keys = dict.fromkeys(("webhook_secret_encryption_key", "crypto_kek_passphrase", "flask_secret_key"), "key")
    return {"box": "/tmp", "settings": {**LEAST, **settings}, "keys": keys, "s3_credentials": ""}


@pytest.mark.parametrize("version", [MLFLOW_VERSION, OLDEST_VERSION])
def test_a_box_without_webhooks_sends_none(version: str) -> None:
    plans = json.dumps({"off": plan(webhooks=False), "on": plan()})
    argv = [environment(version) / "bin" / "python", "-P", "-c", CODE, HOOK]
    done = subprocess.run(argv, input=plans, capture_output=True, text=True, check=False, timeout=120, cwd="/tmp")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"off": [], "on": [HOOK, HOOK]}, done.stderr
