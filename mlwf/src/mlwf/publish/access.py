"""Who may read what was published: set as asked, then proven by a read without credentials."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from botocore.exceptions import ClientError

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.publish.place import error_code, store_errors
from mlwf.publish.upload import Store
from mlwf.transfer.http import RefusedError, Request, TransientError, opened, retried
from mlwf.transfer.store import store_session

Access = Literal["private", "authenticated-read", "public-read"]
ACCESSES: tuple[Access, ...] = ("private", "authenticated-read", "public-read")
# For each of so many who publish in one bucket at the same moment, once.
TRIES = 10
# The answers that mean no. A store that is busy, or elsewhere, has said nothing about it.
UNREADABLE = frozenset({401, 403, 404})


def set_acl(store: Store, name: str, access: Access) -> None:
    """Give one object this ACL. Raises StoreRefusedError."""
    with store_errors(_("The ACL of {url} cannot be set").format(url=store.place.s3_url(name))):
        store.client.put_object_acl(Bucket=store.place.bucket, Key=store.place.key(name), ACL=access)


def allow_by_policy(store: Store) -> bool:
    """Let everybody read what is below the prefix, by a statement of our own in the bucket's policy. True if it was not there yet.

    Other statements stay. Raises StoreRefusedError.
    """
    with store_errors(_("The policy of bucket {bucket} cannot be set").format(bucket=store.place.bucket)):
        policy = _policy(store)
        statement = _statement(store)
        others = [each for each in policy["Statement"] if each.get("Sid") != statement["Sid"]]
        if len(others) < len(policy["Statement"]):
            return False
        policy["Statement"] = [*others, statement]
        store.client.put_bucket_policy(Bucket=store.place.bucket, Policy=json.dumps(policy))
    return True


def open_by_policy(store: Store, name: str, environ: Mapping[str, str], profile: str | None = None) -> None:
    """As `allow_by_policy`, proven by a read of that object. Of two who write a policy at once, one writes what it read before the other
    wrote, and S3 knows no condition for that: a statement of ours that is gone is put there again. Raises StoreRefusedError, MlwfError.
    """
    url = store.place.web_url(name)
    for _attempt in range(TRIES):
        allow_by_policy(store)
        if anyone_can_read(url, environ, profile):
            return
    prove(url, "public-read", environ, profile, by_policy=True)


def _policy(store: Store) -> dict[str, Any]:
    try:
        text = store.client.get_bucket_policy(Bucket=store.place.bucket)["Policy"]
    except ClientError as error:
        if error_code(error) != "NoSuchBucketPolicy":
            raise
        return {"Version": "2012-10-17", "Statement": []}
    loaded: dict[str, Any] = json.loads(text)
    statements = loaded.get("Statement", ())
    # A lone statement need not be in a list.
    return loaded | {"Statement": [statements] if isinstance(statements, dict) else list(statements)}


def _statement(store: Store) -> dict[str, Any]:
    prefix = store.place.prefix
    return {
        "Sid": f"MlwfPublish{hashlib.sha256(prefix.encode()).hexdigest()[:12]}",
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{store.place.bucket}/{prefix}*"],
    }


def anyone_can_read(
    url: str, environ: Mapping[str, str], profile: str | None = None, *, wait: Callable[[float], object] = time.sleep
) -> bool:
    """Whether the first byte at this web address is given to somebody without credentials. Raises MlwfError when the store does not say.

    `profile`: the one of the upload, for who vouches for the store's certificate.
    """
    session = store_session(url, environ, profile)

    def ask() -> bool:
        with opened(session, Request(url, {"Range": "bytes=0-0"})):
            return True

    try:
        return retried(ask, wait, attempts=3)
    except (RefusedError, TransientError) as error:
        if isinstance(error, RefusedError) and error.status in UNREADABLE:
            return False
        raise MlwfError(
            _("Who can read {url} is not known").format(url=url),
            str(error),
            _("Check the address of the object store and the network, and run it again: nothing is uploaded twice."),
        ) from error


def prove(url: str, access: Access, environ: Mapping[str, str], profile: str | None = None, *, by_policy: bool) -> None:
    """Raises MlwfError unless a read without credentials goes as `access` says. `by_policy`: the way that was taken."""
    readable = anyone_can_read(url, environ, profile)
    if access == "public-read" and not readable:
        cure = _("Try --by-policy, or ask the store's admins how objects are made public.")
        if by_policy:
            cure = _(
                "Run it again in a minute: a policy may take a moment. If it goes on, ask the store's admins what forbids public access."
            )
        raise MlwfError(
            _("{url} cannot be read without a key, although that was asked for").format(url=url),
            _("the store accepted the request and did not act on it, or the bucket forbids it"),
            cure,
        )
    if access != "public-read" and readable:
        raise MlwfError(
            _("Everybody can read {url}, although that was not asked for").format(url=url),
            _("a policy or ACL of the bucket says so"),
            _("Publish under another prefix or bucket, or ask for --acl public-read."),
        )
