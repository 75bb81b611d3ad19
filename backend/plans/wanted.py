"""What a box's settings should be, from the registry's row: one pure function."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from mlwf.address import origin_of

from backend import sizes
from backend.domain import Box, BoxToken, Storage, StorageKey, User
from backend.registry.keyring import Keyring
from backend.registry.models import Server
from backend.settings import Settings
from backend.wishes import portpool, tickets, uidpool

EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 (inside a container)
DRAIN_MARGIN = 10.0
"""The box ends by itself this long before the service would kill it."""


def storage_of(server: Server) -> Storage:
    """Where the server's artifacts live now."""
    return Storage(bucket=server.bucket, prefix=server.prefix, endpoint_url=server.endpoint_url, region=server.region)


def key_of(server: Server, keyring: Keyring) -> StorageKey:
    """The key in force now."""
    return StorageKey(access_key_id=server.access_key_id, secret_access_key=keyring.decrypt(server.secret_access_key))


def users_of(rows: Sequence[dict[str, str]]) -> tuple[User, ...]:
    """Users as the registry and payloads hold them."""
    return tuple(User(name=row["name"], bcrypt=row["bcrypt"]) for row in rows)


def wanted_box(
    server: Server,
    settings: Settings,
    keyring: Keyring,
    *,
    storage: Storage | None = None,
    key: StorageKey | None = None,
    users: tuple[User, ...] | None = None,
) -> Box:
    """All that the box's ``config/`` should hold: the row's, but for what is named beside it."""
    return Box(
        server_id=server.id,
        settings=_settings(server, settings, storage or storage_of(server)),
        key=key or key_of(server, keyring),
        keys=keyring.decrypt(server.box_keys),
        users=users_of(server.users) if users is None else users,
        ticket_keys=tickets.read_keys(keyring.decrypt(server.ticket_keys)) if server.ticket_keys else (),
        tokens=_tokens(server),
        revoked=tuple(sorted((visit.user, visit.revoked_at.timestamp()) for visit in server.visits if visit.revoked_at)),
        uids=uidpool.pair(server.uid),
    )


def _settings(server: Server, settings: Settings, storage: Storage) -> dict[str, object]:
    size = sizes.in_force(settings, server.size)
    portal = urlsplit(settings.portal_url) if settings.portal_url else None
    return {
        "server_id": server.id,
        "mlflow_version": server.mlflow_version,
        # in a container: all addresses of its own network, of which one port is published on listen_address
        "listen": portpool.joined(settings.listen_address if server.uid is None else EVERY_ADDRESS, server.port),
        # a server keeps its host's name for life, as it was written once; clients send it in lower case
        "public_hosts": [f"{server.host.lower()}:{server.port}", *([portal.netloc] if portal else [])],
        "origins": [origin_of(settings.portal_url)] if settings.portal_url else [],
        "sign_in_origins": sorted({origin_of(url) for url in (settings.portal_url, settings.console_url) if url}) if portal else [],
        "console_url": settings.console_url,
        "session_seconds": settings.session_hours * 3600,
        "bucket": storage.bucket,
        "prefix": storage.prefix,
        "endpoint_url": storage.endpoint_url,
        "region": storage.region,
        "s3_ca_file": str(settings.s3_ca_file) if settings.s3_ca_file else None,
        "artifact_access": server.artifact_access,
        "idle_seconds": server.idle_seconds,
        "drain_seconds": max(0, int(settings.stop_timeout - DRAIN_MARGIN)),
        "workers": size.workers,
        "genai_jobs": size.genai_jobs,
        "allow_gateway": size.gateway,
        "gateway_private": size.gateway_private,
        "max_upload_bytes": settings.max_upload_bytes,
        "tmp_bytes": settings.tmp_bytes,
        "nginx": settings.nginx if server.uid is None else "nginx",
    }


def _tokens(server: Server) -> tuple[BoxToken, ...]:
    found = (token for token in server.tokens if token.revoked_at is None)
    ordered = sorted(found, key=lambda token: token.id)
    return tuple(BoxToken(id=each.id, sha256=each.sha256, user=each.user, expires=each.expires_at.timestamp()) for each in ordered)
