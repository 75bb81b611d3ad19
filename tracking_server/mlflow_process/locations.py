"""Where a server's artifacts may be. Pure: texts in, a reason for refusal out.

MLflow acts with the server's own key, so a location that a member may choose freely would open every bucket of that key, and a local path
every file that MLflow's account can reach.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

# Message type and field: what MLflow's API takes as a location. `tests/box/test_location_table.py` walks MLflow's own list against these.
CHECKED_FIELDS = frozenset({("CreateExperiment", "artifact_location"), ("CreateModelVersion", "source")})
# Tags by which a trace says where its data is.
CHECKED_TAGS = frozenset({"mlflow.artifactLocation", "mlflow.trace.archiveLocation"})
# MLflow's own placeholders for registered prompts, which have no files.
PROMPT_SOURCES = frozenset({"prompt-template", "dummy-source"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True)
class Locations:
    """A server's own bucket and prefix."""

    bucket: str
    prefix: str

    def refusal(self, location: str) -> str | None:
        """Why this location is not the server's own, with the cure; None when it is."""
        if self._is_own(location):
            return None
        return (
            f"The location is outside this server's own storage: leave it out, or use one under s3://{self.bucket}/{self.prefix}/ "
            "or mlflow-artifacts:/, or a source such as runs:/… or models:/…"
        )

    def _is_own(self, location: str) -> bool:
        if _CONTROL.search(location) or not location:
            return False
        try:
            # As MLflow reads them: a model's name may hold a #.
            parts = urllib.parse.urlsplit(location, allow_fragments=not location.startswith("models:"))
        except ValueError:
            return False
        # A scheme in capitals is another one to some readers and the same to others: take only the usual spelling.
        if not location.startswith(f"{parts.scheme}:") or parts.query or parts.fragment or _climbs(parts.path):
            return False
        if parts.scheme == "s3":
            return parts.netloc == self.bucket and f"{parts.path.rstrip('/')}/".startswith(f"/{self.prefix}/")
        if parts.scheme in ("runs", "models", "mlflow-artifacts"):
            return not parts.netloc and parts.path.startswith("/")
        return False


def _climbs(path: str) -> bool:
    """Whether a path has `.` or `..` in it, however often it was percent-encoded."""
    for _ in range(4):
        decoded = urllib.parse.unquote(path)
        if decoded == path:
            break
        path = decoded
    else:
        return True
    return any(part.strip() in (".", "..") for part in re.split(r"[/\\]", path))
