"""What a GenAI job works on: a trace, judges that need no language model, and one that asks one through MLflow's gateway."""

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# MLflow's own client writes the trace and says how a judge is written down.
_CLIENT = """
import json, sys
import mlflow
from mlflow.genai.scorers import Guidelines, RegexMatch, ResponseLength
with mlflow.start_span("answer") as span:
    span.set_inputs({"question": "how many?"})
    span.set_outputs("a" * 64 + "b")
mlflow.flush_trace_async_logging()
judges = {
    "short": ResponseLength(name="short", max_length=100),
    "endless": RegexMatch(name="endless", pattern="(a+)+$"),
    "polite": Guidelines(name="polite", guidelines="The answer is polite.", model="gateway:/judge"),
}
print(json.dumps({"trace": span.trace_id, **{name: json.dumps(judge.model_dump()) for name, judge in judges.items()}}))
"""
# As the gateway's pages do it.
_ENDPOINT = """
import sys
from mlflow.entities.gateway_endpoint import GatewayEndpointModelConfig, GatewayModelLinkageType
from mlflow.tracking._tracking_service.utils import _get_store
store = _get_store()
secret = store.create_gateway_secret("of-the-group", {"api_key": sys.argv[2]}, provider="openai", auth_config={"api_base": sys.argv[1]})
model = store.create_gateway_model_definition("a-model", secret.secret_id, "openai", "some-model")
chosen = GatewayEndpointModelConfig(model_definition_id=model.model_definition_id, linkage_type=GatewayModelLinkageType.PRIMARY, weight=1.0)
store.create_gateway_endpoint("judge", [chosen])
"""
PROVIDER_KEY = "sk-of-the-group-0123456789"


def a_trace_and_judges(environment: Path, url: str, auth: tuple[str, str], *, seconds: float) -> dict[str, str]:
    """`trace`: the id of one that MLflow's client has just written to the server; the others: judges as jobs take them."""
    document: dict[str, str] = json.loads(_as_client(environment, url, auth, _CLIENT, seconds=seconds).splitlines()[-1])
    return document


def add_endpoint(environment: Path, url: str, auth: tuple[str, str], provider: str, *, seconds: float) -> None:
    """Makes the gateway's endpoint `judge`, which asks the model of the provider at that address."""
    _as_client(environment, url, auth, _ENDPOINT, provider, PROVIDER_KEY, seconds=seconds)


def _as_client(environment: Path, url: str, auth: tuple[str, str], *script: str, seconds: float) -> str:
    own = {"MLFLOW_TRACKING_URI": url, "MLFLOW_TRACKING_USERNAME": auth[0], "MLFLOW_TRACKING_PASSWORD": auth[1]}
    argv, surroundings = [str(environment / "bin" / "python"), "-c", *script], {**os.environ, **own}
    done = subprocess.run(argv, env=surroundings, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Provider:
    """Stands for a provider of language models, which cannot be had here: says yes to each question. `asked`: keys and questions so far.

    To who wants the words as they come it says `yes`, and `, please` when `go_on` is set.
    """

    url: str = ""
    go_on: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@contextlib.contextmanager
def provider() -> Iterator[Provider]:
    """On loopback, with the API that OpenAI's customers and most other providers know."""
    found = Provider()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.asked.append((self.headers["Authorization"], body))
            if body.get("stream"):
                self._say_slowly(body["model"])
                return
            word = json.dumps({"result": "yes", "rationale": "It says please."})
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": word}}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            answer = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice], "usage": usage}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def _say_slowly(self, model: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for word, end in (("yes", None), (", please", "stop")):
                choice = {"index": 0, "finish_reason": end, "delta": {"role": "assistant", "content": word}}
                part = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": [choice]}
                self.wfile.write(f"data: {json.dumps(part)}\n\n".encode())
                self.wfile.flush()
                found.go_on.wait(60)
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *_words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        yield found
        server.shutdown()
