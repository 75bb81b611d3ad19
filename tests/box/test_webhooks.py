"""Whether MLflow's webhooks are sent, as a box's settings say."""

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.box.parts import LEAST
from tests.support.box import MLFLOW_VERSION, OLDEST_VERSION, environment

pytestmark = pytest.mark.box
HOOK, PUBLIC_HOOK = "https://192.0.2.1/hook", "https://8.8.8.8/hook"
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
# One of MLflow's processes makes a webhook in the database; or one that comes after it sends it.
ONE_OF_TWO = """
import json, sys
import requests
sent = []
requests.Session.post = lambda _session, url, **options: sent.append([url, options["headers"], options["data"].decode()])
from tracking_server.mlflow_process import environment
from tracking_server.mlflow_process.plan import read_plan
environment.apply(read_plan(sys.stdin.read()))
from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.webhooks import delivery
what, database, url, secret = sys.argv[1:]
event, store = WebhookEvent(WebhookEntity.REGISTERED_MODEL, WebhookAction.CREATED), SqlAlchemyStore("sqlite:///" + database)
class Now:
    submit = staticmethod(lambda work, *arguments: work(*arguments))
delivery._webhook_delivery_executor = Now()
if what == "make":
    store.create_webhook("hook", url, [event], secret=secret)
else:
    delivery.deliver_webhook(event=event, payload={"name": "wine"}, store=store)
print(json.dumps(sent))
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


def test_a_webhook_made_before_a_sleep_is_signed_with_its_secret_after_it(tmp_path: Path) -> None:
    """The secret is encrypted in the database, and each MLflow is given the same key for it: with another one nothing is sent."""
    place, database, secret = environment(), tmp_path / "mlflow.db", "what the receiver knows"
    shutil.copy(place / "template.db", database)
    keys = [{**plan()["keys"], "webhook_secret_encryption_key": Fernet.generate_key().decode()} for _ in range(2)]

    def one(what: str, keys: dict[str, str], secret: str = "") -> Any:
        argv = [place / "bin" / "python", "-P", "-c", ONE_OF_TWO, what, database, PUBLIC_HOOK, secret]
        given = json.dumps({**plan(), "keys": keys})
        done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=120, cwd="/tmp")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    assert one("make", keys[0], secret) == []
    assert secret.encode() not in database.read_bytes()
    ((url, headers, body),) = one("send", keys[0])
    signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}.{body}".encode()
    right = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    assert (url, headers["X-MLflow-Signature"], json.loads(body)["data"]) == (PUBLIC_HOOK, f"v1,{right}", {"name": "wine"})
    assert one("send", keys[1]) == []
