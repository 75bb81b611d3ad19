"""The console as a portal starts it for one user: that user's process, mounted where the portal mounts it, one request at a time.

`python -m tests.support.pun PORT`; its settings come from the environment.
"""

import sys
from typing import Any

from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.serving import WSGIRequestHandler, make_server

from ood_app.passenger_wsgi import application

MOUNT = "/pun/sys/mlflow-console"


class Quiet(WSGIRequestHandler):
    def log(self, *_args: Any) -> None:
        """The portal has a log."""


def nothing(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [])
    return []


if __name__ == "__main__":
    app = ProxyFix(DispatcherMiddleware(nothing, {MOUNT: application}), x_proto=1)
    make_server("127.0.0.1", int(sys.argv[1]), app, threaded=False, request_handler=Quiet).serve_forever()
