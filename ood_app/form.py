"""The form's fields as a request to the service. What a name may look like is the service's to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mlwf.aws_profiles import KeyPair
from mlwf.secret import Secret

from ood_app import caller
from ood_app.problems import Problem
from ood_app.texts import _

OPTIONS: Final = ("endpoint_url", "region", "artifact_access", "mlflow_version", "size")
ID, SECRET, PROFILE = "cloud_storage_accesskey_ID", "cloud_storage_secret_accesskey", "profile"


def create_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the client's `create`. Raises Problem with the fields that are empty or wrong."""
    names = ("group_name", "env_name", "cloud_storage_bucket_name")
    empty = [*(name for name in names if not _text(body, name)), *_empty_key_fields(body)]
    _refuse_empty(empty)
    pair = _pair(body)
    options: dict[str, Any] = {name: _text(body, name) for name in OPTIONS if _text(body, name)}
    if _text(body, "idle_seconds"):
        options["idle_seconds"] = _whole_number(body, "idle_seconds")
    return {
        "group": _text(body, "group_name"),
        "env_name": _text(body, "env_name"),
        "bucket": _text(body, "cloud_storage_bucket_name"),
        "access_key_id": pair.access_key_id,
        "secret_access_key": pair.secret_access_key,
        **options,
    }


def storage_request(body: Mapping[str, Any]) -> KeyPair:
    """The key pair alone. Raises Problem with the fields that are empty."""
    _refuse_empty(_empty_key_fields(body))
    return _pair(body)


def _pair(body: Mapping[str, Any]) -> KeyPair:
    if _reads_credentials(body):
        return caller.key_pair(_text(body, PROFILE))
    return KeyPair(_text(body, ID), Secret(_text(body, SECRET)))


def _reads_credentials(body: Mapping[str, Any]) -> bool:
    return _text(body, "credentials") == "read"


def _empty_key_fields(body: Mapping[str, Any]) -> list[str]:
    names = (PROFILE,) if _reads_credentials(body) else (ID, SECRET)
    return [name for name in names if not _text(body, name)]


def _refuse_empty(names: list[str]) -> None:
    if names:
        fields = {name: _("Fill in this field.") for name in names}
        raise Problem(422, "field_empty", _("Some fields are empty."), _("Fill in the fields that are marked."), fields=fields)


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return value.strip() if isinstance(value, str) else ""


def _whole_number(body: Mapping[str, Any], name: str) -> int:
    try:
        return int(_text(body, name))
    except ValueError:
        text = _("Write a whole number of seconds; 0 means never.")
        raise Problem(422, "not_a_number", _("{name} is not a number.").format(name=name), text, fields={name: text}) from None
