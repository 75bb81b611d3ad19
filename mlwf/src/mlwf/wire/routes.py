"""Paths of the service's API, whatever a name holds."""

from urllib.parse import quote

from mlwf.i18n import _
from mlwf.wire.service_errors import ServiceError


def lease_path(group: str, env: str, lease_id: str) -> str:
    """A lease of a server. Raises ServiceError as `server_path`."""
    return f"{server_path(group, env)}/leases/{quote(lease_id, safe='')}"


def server_path(group: str, env: str) -> str:
    """A server. Raises ServiceError for a name that none has."""
    for name in (group, env):
        if name in {"", ".", ".."}:  # would be another path; no server has such a name
            raise ServiceError(code="not_found", detail=_("There is no server {name}").format(name=f"{group}/{env}"), status=404)
    return f"/servers/{quote(group, safe='')}/{quote(env, safe='')}"
