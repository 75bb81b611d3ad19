"""What Passenger loads: `application`. Open OnDemand starts one such process for each user, as that user."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def load() -> WSGIApplication:
    """The console; where its settings cannot be used, an application that says so: Passenger's own page would not."""
    # Passenger puts the app's folder first on the path: its modules must not be found by their bare names, as another package's.
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if not place or Path(place).resolve() != here]
    from ood_app.app import create_app
    from ood_app.settings import SettingsError

    try:
        return create_app()
    except SettingsError as error:
        return refusing(str(error))


def refusing(why: str) -> WSGIApplication:
    """Answers every request with what the admins must put right; and so does the log."""
    sys.stderr.write(f"mlflow-console: {why}\n")
    text = f"The console's settings cannot be used, so the admins must put this right:\n{why}\n".encode()

    def application(_request: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text))), ("Cache-Control", "no-store")]
        start_response("503 Service Unavailable", headers)
        return [text]

    return application


application = load()
