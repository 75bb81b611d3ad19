"""What MLflow takes only from its environment, set inside its process: it is in no declared environment of the box."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tracking_server.mlflow_process.plan import Plan
from tracking_server.settings import Settings

_POOL = "MLFLOW_SQLALCHEMYSTORE_"
SYSTEM_LISTS: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # RHEL, Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # what RHEL's older names lead to
    "/etc/ssl/cert.pem",  # Alpine
)
"""Where operating systems keep the certificate authorities that they trust, a site's own included. The service's own look at an object
store has the same list."""


def variables(plan: Plan) -> dict[str, str]:
    """Names and values for MLflow, boto3 and what they use. `_MLFLOW…` are MLflow's private ones: pinned with its version."""
    settings, box = plan.settings, plan.box
    values = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{box.database}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{box.database}",  # the gateway asks for it by this name, and would make a database of its own
        "_MLFLOW_SERVER_ARTIFACT_ROOT": plan.artifact_root,
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": plan.own_location,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_STATIC_PREFIX": "/mlflow",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_IN_JOB_EXECUTOR": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": str(settings.genai_jobs).lower(),
        "MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS": "false",  # a scorer's own code would run with the server's keys
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # MLflow has 40 threads for 15 connections, and takes a second one while it holds the first: a crowd would lock itself out for 30 s.
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "5",
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "120",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(settings.public_hosts),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(settings.pages),
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": plan.keys["webhook_secret_encryption_key"],
        "MLFLOW_CRYPTO_KEK_PASSPHRASE": plan.keys["crypto_kek_passphrase"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": plan.keys["flask_secret_key"],
        "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "path",
        "AWS_SHARED_CREDENTIALS_FILE": _file_in_memory("s3-credentials", plan.s3_credentials),
        "AWS_CONFIG_FILE": _file_in_memory("aws-config", aws_config(plan)),
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "TMPDIR": str(box.tmp),
        "HOME": str(box.tmp),
        "MPLCONFIGDIR": str(box.tmp),
    }
    if settings.endpoint_url:
        values["MLFLOW_S3_ENDPOINT_URL"] = settings.endpoint_url
    if trusted := settings.s3_ca_file or _system_list():
        values["AWS_CA_BUNDLE"] = trusted
    return values | _outwards(settings)


def _system_list() -> str | None:
    """The list of the machine or image that this runs on. Unasked, boto3 takes the list of a Python package, which knows no site's own."""
    return next((path for path in SYSTEM_LISTS if Path(path).is_file()), None)


def _outwards(settings: Settings) -> dict[str, str]:
    """Of MLflow's AI gateway and webhooks. MLflow itself refuses models at private addresses and without TLS, unless told otherwise."""
    values = {"MLFLOW_ENABLE_AI_GATEWAY": str(settings.allow_gateway).lower()}
    if settings.gateway_private:
        values["MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES"] = "http,https"
        values["MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS"] = "true"
    if not settings.webhooks:
        values["MLFLOW_WEBHOOK_ALLOWED_SCHEMES"] = "none"  # MLflow looks at each address right before it asks it
    return values


def aws_config(plan: Plan) -> str:
    """boto3's configuration file: path-style addresses, since S3-likes seldom have a host name per bucket."""
    return f"[default]\nregion = {plan.settings.region}\ns3 =\n    addressing_style = path\n"


def _file_in_memory(name: str, text: str) -> str:
    """The path of a file that is on no disk and ends with this process; forked workers have it, too."""
    descriptor = os.memfd_create(name)
    os.write(descriptor, text.encode())
    return f"/proc/self/fd/{descriptor}"


def apply(plan: Plan) -> None:
    """Into this process."""
    os.environ.update(variables(plan))


def add_job(values: dict[str, str]) -> None:
    """Into this process, which is one job's: what only the job has. What it traces is written before it ends."""
    os.environ.update({"MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false", **values})


@contextmanager
def no_pool() -> Iterator[None]:
    """What MLflow makes in the meantime keeps no connection to its database between two questions."""
    usual = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_POOL)}
    os.environ[f"{_POOL}POOLCLASS"] = "NullPool"
    try:
        yield
    finally:
        del os.environ[f"{_POOL}POOLCLASS"]
        os.environ.update(usual)
