"""Lines that users copy into a job or a terminal. What somebody chose is quoted for the shell; no secret is ever part of them."""

from __future__ import annotations

from shlex import quote

from mlwf.answers import Server

from ood_app.texts import _


def job_lines(server: Server) -> str:
    """What a job script needs to reach the server; the password stays in the auth file."""
    user = server.users.names[0] if server.users.names else "USER_NAME"
    lines = [
        f"export MLFLOW_TRACKING_URI={quote(server.inside_url or '')}",
        f"export MLFLOW_TRACKING_USERNAME={quote(user)}",
        f"# {_('the pass of this user in {path}:').format(path=server.auth_file)}",
        "export MLFLOW_TRACKING_PASSWORD=",
        *_storage_lines(server),
        f"# {_('with the mlwf tools, instead of the lines above:')} {_env_line(server)}",
    ]
    return "\n".join(lines)


def export_command(server: Server) -> str:
    """The commands that pack one version of a registered model."""
    command = f"mlwf_export_model --model-registry-url {quote(server.inside_url or '')} --model-name NAME --model-version VERSION"
    return "\n".join([_env_line(server), *_storage_lines(server), command])


def image_command(server: Server, base: str) -> str:
    """The command that builds a container image of an exported model."""
    lines = _endpoint_lines(server)
    return "\n".join([*lines, f"mlwf_create_image --model-pkg-url PATH_OR_URL/model.tar.gz --base-container-url {quote(base)}"])


def _env_line(server: Server) -> str:
    name = quote(f"{server.group}/{server.env_name}")
    return f'eval "$(mlwf server env {name})"'


def _storage_lines(server: Server) -> list[str]:
    """Where artifacts go straight to the object store, the job needs its address; its keys come from the caller's ~/.aws/credentials."""
    return _endpoint_lines(server) if server.storage.artifact_access == "direct" else []


def _endpoint_lines(server: Server) -> list[str]:
    return [f"export MLFLOW_S3_ENDPOINT_URL={quote(server.storage.endpoint_url)}"] if server.storage.endpoint_url else []
