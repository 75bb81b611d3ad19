"""Where a package is published: a prefix of a bucket, reached with the caller's own AWS credentials."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import boto3
import botocore.session
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from requests.utils import get_environ_proxies

from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _
from mlwf.transfer.store import StoreError, credentials_of, endpoint_of, key_trouble, region_of, settings_errors, store_trust

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# What another try with the same key and bucket would meet again.
LASTING = frozenset(
    {
        "AccessDenied",
        "NoSuchBucket",
        "NoSuchKey",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "QuotaExceeded",
        "EntityTooLarge",
        "PreconditionFailed",
    }
)

_PARTS = ("s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts", "s3:AbortMultipartUpload")
_POLICY = ("s3:GetBucketPolicy", "s3:PutBucketPolicy")
# Of what needs others than reading and writing do.
RIGHTS = {
    "ListMultipartUploads": _PARTS,
    "ListParts": _PARTS,
    "AbortMultipartUpload": _PARTS,
    "DeleteObject": ("s3:DeleteObject",),
    "PutObjectAcl": ("s3:PutObjectAcl",),
    "GetBucketPolicy": _POLICY,
    "PutBucketPolicy": _POLICY,
}


class StoreRefusedError(MlwfError):
    """The object store did not do what was asked. `lasting`: it would refuse again."""

    def __init__(self, what: str, why: str, cure: str, *, lasting: bool) -> None:
        super().__init__(what, why, cure)
        self.lasting = lasting


@dataclass(frozen=True)
class Place:
    """`s3://BUCKET/PREFIX/`; the prefix ends with a slash, or is empty. `endpoint_url` ends without one."""

    bucket: str
    prefix: str
    endpoint_url: str

    def key(self, name: str) -> str:
        return self.prefix + name

    def s3_url(self, name: str = "") -> str:
        return f"s3://{self.bucket}/{self.key(name)}"

    def web_url(self, name: str = "") -> str:
        """The address for those without an S3 client."""
        return f"{self.endpoint_url}/{self.bucket}/{quote(self.key(name), safe='/~')}"


def parse_place(url: str, environ: Mapping[str, str], endpoint_url: str | None = None, profile: str | None = None) -> Place:
    """Raises WrongUseError for what is no `s3://BUCKET/PREFIX/`."""
    scheme, _mark, rest = url.partition("://")
    bucket, _slash, prefix = rest.partition("/")
    if scheme != "s3" or not bucket or "?" in url or "#" in url:
        raise WrongUseError(
            _("{url} is not s3://BUCKET/PREFIX/").format(url=url), cure=_("Give the bucket and the prefix to publish under.")
        )
    prefix = prefix.strip("/")
    return Place(bucket, f"{prefix}/" if prefix else "", (endpoint_url or endpoint_of(environ, {}, profile)).rstrip("/"))


def s3_client(place: Place, environ: Mapping[str, str], profile: str | None = None, *, region: str | None = None) -> "S3Client":
    """A client that signs with the caller's credentials. `region`: where a tracking server tells it. Raises MlwfError."""
    settings = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=10,
        read_timeout=120,
        retries={"max_attempts": 5, "mode": "standard"},
        max_pool_connections=16,
        proxies=get_environ_proxies(place.endpoint_url),  # as for all else: botocore by itself knows no networks in no_proxy
    )
    session = _session(profile)
    try:
        verify = store_trust(environ, profile)
        region = region_of(environ, {"region": region}, profile)
        return session.client("s3", endpoint_url=place.endpoint_url, region_name=region, config=settings, verify=verify)
    except (BotoCoreError, ValueError, AttributeError) as error:  # the last for a text where a section of ~/.aws/config belongs
        raise WrongUseError(
            _("The object store cannot be asked"),
            str(error),
            _("Correct the AWS settings that it names (AWS_PROFILE …), or the endpoint's URL."),
        ) from error


def _session(profile: str | None) -> boto3.session.Session:
    try:
        with settings_errors():
            own = botocore.session.Session(profile=profile)
            session = boto3.session.Session(botocore_session=own)
        credentials_of(own)
    except StoreError as error:
        raise WrongUseError(_("The object store cannot be asked"), error.why, error.cure) from error
    return session


@contextlib.contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turns what botocore raises into StoreRefusedError. `what`: what was not done, in the reader's language."""
    try:
        yield
    except ClientError as error:
        raise _refused(what, error) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        cure = _("Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with --profile.")
        raise StoreRefusedError(what, _("there are no AWS credentials"), cure, lasting=True) from error
    except BotoCoreError as error:
        cure = _("Check MLFLOW_S3_ENDPOINT_URL and the network, and run it again.")
        raise StoreRefusedError(what, str(error), cure, lasting=False) from error


def error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def lasting(error: ClientError) -> bool:
    """Whether the store would refuse the same again."""
    return _refused("", error).lasting


def _refused(what: str, error: ClientError) -> StoreRefusedError:
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    known = {
        "AccessDenied": (_("your key may not do that"), _rights_cure(error.operation_name)),
        "AccessControlListNotSupported": (_("the bucket takes no ACLs"), _("Try --by-policy, or leave out --acl.")),
        "NoSuchBucket": (_("there is no such bucket"), _("Make the bucket first, or correct its name.")),
        "NoSuchKey": (_("there is nothing of that name"), _("Check the address, and that it was published.")),
        "PreconditionFailed": (
            _("another package was published there meanwhile"),
            _("Publish under another prefix, such as one that ends with the version, or add --replace."),
        ),
        "NoSuchUpload": (_("its parts were removed meanwhile"), _("Run it again; if it goes on, ask the store's admins.")),
        "QuotaExceeded": (_("the bucket is full"), _("Remove something, or ask for more room; what was uploaded is removed.")),
    }
    missing = "NoSuchBucket" if error.operation_name == "HeadBucket" else "NoSuchKey"  # what answers HEAD has no code of its own
    names = {403: "AccessDenied", 404: missing, 507: "QuotaExceeded"}
    blamed = key_trouble(code)
    name = code if blamed or code in known else names.get(status, "")
    why, cure = blamed or known.get(name) or (f"{code} ({status})", _("Run it again; if it goes on, ask the store's admins."))
    return StoreRefusedError(what, why, cure, lasting=name in LASTING or code in LASTING)


def _rights_cure(operation: str) -> str:
    """What an AccessDenied asks for, by what was refused."""
    rights = ", ".join(RIGHTS.get(operation, ()))
    if operation in {"PutObjectAcl", "PutBucketPolicy"}:
        return _("Ask the bucket's owner for {rights} there, and whether the bucket may be opened at all (Block Public Access).").format(
            rights=rights
        )
    if rights:
        return _("Ask the bucket's owner for {rights} there, too.").format(rights=rights)
    return _("Ask the bucket's owner for the rights to list, read and write there (s3:ListBucket, s3:GetObject, s3:PutObject).")
