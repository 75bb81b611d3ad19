"""What requests may say. These models are the one source of patterns and limits: they refuse, and the OpenAPI document shows them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from mlwf.secret import Secret
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from backend.domain import BUCKET_NAME, ENV_NAME, ArtifactAccess, StorageKey, bucket_name_is_valid
from backend.sizes import NAME as SIZE_NAME
from backend.wishes.leases import AtEnd, LeaseWish
from backend.wishes.passwords import MOST_BYTES
from backend.wishes.values import CreateWish, StorageWish

GROUP_NAME: Final = r"^[^/:.\x00-\x1f\x7f][^/:\x00-\x1f\x7f]{0,254}$"
ACCESS_KEY_ID: Final = r"^[\x21-\x7e]{1,128}$"
PRINTABLE: Final = r"^[\x21-\x7e]{1,256}$"
REGION: Final = r"^[A-Za-z0-9-]{1,64}$"
ENDPOINT_URL: Final = r"^https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"
VERSION: Final = r"^[0-9A-Za-z.+-]{1,32}$"
USER_NAME: Final = r"^[^:\x00-\x1f\x7f]{1,255}$"
PLAIN: Final = r"^[^\x00-\x1f\x7f]{1,72}$"
LEASE_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
NOTE: Final = r"^[^\x00-\x1f\x7f]{0,255}$"
LEAST_LEASE, MOST_LEASE = 5, 2_678_400
ACCESS_ID: Final = r"^[a-z0-9]{12}$"
SERVER_ID: Final = ACCESS_ID
LEAST_TOKEN, MOST_TOKEN = 60, 315_360_000
OPERATION_ID: Final = r"^op_[0-9a-f]{16}$"
MOST_USERS: Final = 16


class Input(BaseModel):
    """Unknown fields are refused, and no error ever shows what was sent: it may be a secret."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, validate_by_alias=True)


def _bucket(name: str) -> str:
    if not bucket_name_is_valid(name):
        raise PydanticCustomError("shape", "not a bucket's name")
    return name


def _endpoint(url: str) -> str:
    try:
        good = urlsplit(url).port != 0
    except ValueError:  # brackets around what is no IPv6 address, a port above 65535
        good = False
    if not good:
        raise PydanticCustomError("shape", "not an object store's address")
    return url


def _secret_key(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(PRINTABLE, secret.get_secret_value()):
        raise PydanticCustomError("shape", "not printable ASCII")
    return secret


def _password(password: SecretStr) -> SecretStr:
    text = password.get_secret_value()
    if len(text.encode()) > MOST_BYTES or not re.fullmatch(PLAIN, text):
        raise PydanticCustomError("shape", "too long, or control characters")
    return password


def _whole(number: object) -> object:
    """In JSON, and so for JSON Schema, 900.0 is a whole number too."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Bucket = Annotated[str, Field(pattern=BUCKET_NAME, min_length=3, max_length=63), AfterValidator(_bucket)]
AccessKey = Annotated[str, Field(pattern=ACCESS_KEY_ID, min_length=1, max_length=128)]
SecretKey = Annotated[SecretStr, Field(min_length=1, max_length=256, json_schema_extra={"pattern": PRINTABLE}), AfterValidator(_secret_key)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=MOST_BYTES, json_schema_extra={"pattern": PLAIN}), AfterValidator(_password)]
Endpoint = Annotated[str, Field(pattern=ENDPOINT_URL, max_length=1024), AfterValidator(_endpoint)]
Region = Annotated[str, Field(pattern=REGION)]
IdleSeconds = Annotated[int, Field(ge=0, le=2_592_000), BeforeValidator(_whole)]


class ServerCreate(Input):
    """A tracking server to be made."""

    group: str = Field(pattern=GROUP_NAME, description="A Unix group of the caller.")
    env_name: str = Field(pattern=ENV_NAME, description="2 to 255 of a-z, 0-9, - and _, a letter or digit first; unique in the group.")
    bucket: Bucket = Field(description="An existing bucket.")
    access_key_id: AccessKey
    secret_access_key: SecretKey
    endpoint_url: Endpoint | None = Field(default=None, description="The object store; null: the site's.")
    region: Region | None = Field(default=None, description="null: the site's.")
    artifact_access: Literal["proxied", "direct"] | None = Field(default=None, description="null: the site's.")
    mlflow_version: str | None = Field(default=None, pattern=VERSION, description="null: the site's.")
    size: str | None = Field(default=None, pattern=SIZE_NAME, description="One of /me's sizes; null: the site's.")
    idle_seconds: IdleSeconds | None = Field(default=None, description="Sleep after so long without activity; 0: never; null: the site's.")

    def wish(self) -> CreateWish:
        """For ``backend.wishes.changes``."""
        return CreateWish(
            group=self.group,
            env_name=self.env_name,
            bucket=self.bucket,
            key=StorageKey(access_key_id=self.access_key_id, secret_access_key=Secret(self.secret_access_key.get_secret_value())),
            endpoint_url=self.endpoint_url,
            region=self.region,
            artifact_access=ArtifactAccess(self.artifact_access) if self.artifact_access else None,
            mlflow_version=self.mlflow_version,
            size=self.size,
            idle_seconds=self.idle_seconds,
        )


class VersionChoice(Input):
    """A newer MLflow."""

    mlflow_version: str = Field(pattern=VERSION, description="One of the server's `upgrades`.")


class SizeChoice(Input):
    """Another size."""

    size: str = Field(pattern=SIZE_NAME, description="One of /me's sizes.")


class StorageChange(Input):
    """Other keys, or another endpoint, for the same bucket."""

    access_key_id: AccessKey
    secret_access_key: SecretKey
    endpoint_url: Endpoint | None = Field(default=None, description="null: as it is.")
    region: Region | None = Field(default=None, description="null: as it is.")

    def wish(self) -> StorageWish:
        """For ``backend.wishes.changes``."""
        key = StorageKey(access_key_id=self.access_key_id, secret_access_key=Secret(self.secret_access_key.get_secret_value()))
        return StorageWish(key=key, endpoint_url=self.endpoint_url, region=self.region)


class UserEntry(Input):
    """A BASIC-auth user, as in ``basic_auth.yml``."""

    user_name: str = Field(pattern=USER_NAME)
    password: Password = Field(alias="pass", description=f"At most {MOST_BYTES} bytes, which is what bcrypt looks at.")


class UsersPut(Input):
    """The whole list; empty: nobody gets in."""

    users: list[UserEntry] = Field(max_length=MOST_USERS)

    @model_validator(mode="after")
    def _each_once(self) -> UsersPut:
        names = [user.user_name for user in self.users]
        if len(set(names)) < len(names):
            raise PydanticCustomError("user_twice", "a user twice")
        return self

    def pairs(self) -> list[tuple[str, Secret]]:
        """Names and passwords."""
        return [(user.user_name, Secret(user.password.get_secret_value())) for user in self.users]


class LeasePut(Input):
    """A lease that is taken or renewed."""

    seconds: Annotated[int, Field(ge=LEAST_LEASE, le=MOST_LEASE), BeforeValidator(_whole)] = Field(
        description="It holds so long from now, by the service's clock."
    )
    at_end: Literal["keep", "stop"] = Field(default="keep", description="What becomes of the server if this is its last lease.")
    note: str = Field(default="", pattern=NOTE, description="For people: which job this is.")

    def wish(self) -> LeaseWish:
        """For ``backend.wishes.leases``."""
        return LeaseWish(seconds=self.seconds, at_end=AtEnd(self.at_end), note=self.note)


class TokenCreate(Input):
    """A bearer token to be made."""

    seconds: Annotated[int, Field(ge=LEAST_TOKEN, le=MOST_TOKEN), BeforeValidator(_whole)] = Field(
        description="It lives so long from now; the site may allow less."
    )
    name: str = Field(default="", pattern=NOTE, description="For people: what it is for.")


class ServerPath(Input):
    """Which server."""

    group: str = Field(pattern=GROUP_NAME)
    env: str = Field(pattern=ENV_NAME)


class OnlyQuery(Input):
    """Which server of that name is meant, by its id."""

    server_id: str | None = Field(
        default=None, pattern=SERVER_ID, description="That server alone; null: whichever has the name now, or had it last."
    )


class RollbackQuery(OnlyQuery):
    """Where it is meant to lead, too."""

    mlflow_version: str | None = Field(default=None, pattern=VERSION, description="To that version alone; null: to `previous`.")


class LeasePath(ServerPath):
    """Which lease."""

    lease_id: str = Field(pattern=LEASE_ID)


class TokenPath(ServerPath):
    """Which token."""

    token_id: str = Field(pattern=ACCESS_ID)


class OperationPath(Input):
    """Which operation."""

    id: str = Field(pattern=OPERATION_ID)


class ServersQuery(Input):
    """Which servers are listed."""

    all: Literal["true", "false"] = Field(default="false", description="Those of every group (admins only).")
    deleted: Literal["true", "false"] = Field(default="false", description="Also servers that were deleted and can be restored.")


_MESSAGES: Final[dict[str, str]] = {
    "missing": "This is required",
    "extra_forbidden": "There is no such field",
    "user_twice": "A user is listed twice",
    "string_too_long": "This is too long",
    "too_long": "At most {max_length} entries",
    "int_type": "This must be a whole number",
    "greater_than_equal": "At least {ge}",
    "less_than_equal": "At most {le}",
    "literal_error": "One of {expected}",
    "list_type": "This must be a list",
    "model_type": "This must be an object",
    "model_attributes_type": "This must be an object",
    "string_type": "This must be text",
    "string_unicode": "This must be text of valid characters",
}
_PATTERNS: Final[dict[str, str]] = {
    "env_name": "2 to 255 of a-z, 0-9, - and _, a letter or digit first",
    "env": "2 to 255 of a-z, 0-9, - and _, a letter or digit first",
    "bucket": "Not a bucket's name: 3 to 63 of a-z, 0-9, - and ., a letter or digit first and last, and not like an IP address",
    "pass": "1 to 72 bytes, no control characters",
    "secret_access_key": "1 to 256 printable ASCII characters without spaces",
    "group": "Not a group's name",
    "access_key_id": "1 to 128 printable ASCII characters without spaces",
    "endpoint_url": "http://HOST or https://HOST, with a port or path where it has one",
    "region": "1 to 64 letters, digits and -",
    "mlflow_version": "Not a version",
    "size": "1 to 32 of a-z, 0-9, - and _",
    "user_name": "1 to 255 characters, neither a colon nor control characters",
    "id": "Not an operation's id",
    "lease_id": "1 to 64 letters, digits, '.', '_' and '-', a letter or digit first",
    "token_id": "Not a token's id",
    "server_id": "Not a server's id",
    "name": "At most 255 characters, no control characters",
    "note": "At most 255 characters, no control characters",
}
_SHAPES: Final = frozenset({"string_pattern_mismatch", "string_too_short", "string_too_long", "too_short", "too_long", "shape"})
"""What pydantic says of a text of the wrong form or length, and we (below): the field's own rule tells all of it."""
OTHER: Final = "Not valid"


def message_of(error: Any) -> tuple[str, dict[str, object]]:
    """The text for one of pydantic's errors, with its parameters; never with what was sent."""
    kind, field = error["type"], str(error["loc"][-1]) if error["loc"] else ""
    ruled = kind in _SHAPES and field in _PATTERNS
    text = _PATTERNS[field] if ruled else _MESSAGES.get(kind, OTHER)
    return text, error.get("ctx") or {}
