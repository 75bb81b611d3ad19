"""The service's answers as the page gets them: only what it shows, with the lines to copy."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, urlsplit

from flask import url_for
from mlwf.answers import Me, Operation, Problem, Server, Token

from ood_app import commands
from ood_app.caller import GroupChange
from ood_app.settings import Settings

SHOWN: Final = (
    "id",
    "group",
    "env_name",
    "status",
    "inside_url",
    "outside_url",
    "auth_file",
    "mlflow_version",
    "size",
    "upgrades",
    "created_by",
    "created_at",
    "updated_at",
    "status_since",
    "operation",
    "allowed",
)


def server_view(server: Server, settings: Settings) -> dict[str, Any]:
    """One server of the list."""
    shown = {name: getattr(server, name) for name in SHOWN}
    shown["inside_url"] = _web_address(server.inside_url)
    shown["outside_url"] = _web_address(server.outside_url)
    return shown | {
        # Through the portal a password does not pass: there the console signs its user in.
        "open_url": url_for("opening.open_ui", group=server.group, env=server.env_name) if shown["outside_url"] else shown["inside_url"],
        "session_url": f"{shown['outside_url']}-/sign-in" if shown["outside_url"] else None,
        "bucket": server.storage.bucket,
        "prefix": server.storage.prefix,
        "endpoint_url": server.storage.endpoint_url,
        "region": server.storage.region,
        "access_key_id": server.storage.access_key_id,
        "idle_seconds": server.raw.get("idle_seconds"),
        "users": server.users.names,
        "users_updated_at": server.users.updated_at,
        "restorable_until": server.deletion.restorable_until if server.deletion else None,
        "deleted_at": server.deletion.deleted_at if server.deletion else None,
        "previous": {"mlflow_version": server.previous.mlflow_version, "until": server.previous.until} if server.previous else None,
        "leases": [{name: getattr(each, name) for name in ("id", "user", "until", "at_end", "note")} for each in server.leases],
        "reason": problem_view(server.reason),
        "warnings": [problem_view(each) for each in server.warnings],
        "job_lines": commands.job_lines(server),
        "export_command": commands.export_command(server),
        "image_command": commands.image_command(server, settings.base_container_url),
        "export_form": _form(settings.export_form_url, server),
        "image_form": _form(settings.image_form_url, server),
    }


def token_view(token: Token) -> dict[str, Any]:
    """One bearer token of a server, without its text."""
    return {name: getattr(token, name) for name in ("id", "name", "user", "state", "created_at", "expires_at")}


def operation_view(operation: Operation) -> dict[str, Any]:
    """One operation with its steps."""
    names = ("id", "kind", "group", "env_name", "server_id", "state", "requested_by", "message", "created_at", "finished_at", "request_id")
    steps = [
        {name: getattr(step, name) for name in ("name", "label", "state", "started_at", "finished_at", "detail")}
        for step in operation.steps
    ]
    return {name: getattr(operation, name) for name in names} | {"steps": steps, "error": problem_view(operation.error)}


def problem_view(problem: Problem | None) -> dict[str, Any] | None:
    """A reason, warning or error; `log` as one text."""
    if problem is None:
        return None
    log = problem.log if isinstance(problem.log, str) else "\n".join(problem.log or [])
    return {"code": problem.code, "detail": problem.detail, "cure": problem.cure, "log": log}


def me_view(me: Me, change: GroupChange, settings: Settings) -> dict[str, Any]:
    """What the form offers. Only groups in which the caller may create are a choice; a change of groups matters only for those."""
    offered = {each.name for each in me.groups}
    return {
        "user": me.user,
        "groups": sorted(each.name for each in me.groups if each.may_create),  # NSS has them by their numbers
        "other_groups": sorted(each.name for each in me.groups if not each.may_create),
        "defaults": me.defaults,
        "choices": me.choices,
        "sizes": me.sizes,
        "endpoint_url_fixed": me.endpoint_url_fixed,
        "restore_days": me.restore_days,
        "previous_days": me.previous_days,
        "isolates": me.runtime.get("isolates", True),
        "joined": [name for name in change.joined if name in offered],
        "left": list(change.left),
        "local_jobs": settings.local_jobs,
        "base_container_url": settings.base_container_url,
    }


def _web_address(url: str | None) -> str | None:
    """Only a web address becomes a link, whatever the service said."""
    return url if url and urlsplit(url).scheme in {"http", "https"} else None


def _form(url: str, server: Server) -> str | None:
    if not url:
        return None
    joint = "&" if "?" in url else "?"
    return f"{url}{joint}group_name={quote(server.group, safe='')}&env_name={quote(server.env_name, safe='')}"
