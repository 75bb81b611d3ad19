"""The environment variables that the tools read, in one table, and their one reader."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    name: str
    meaning: str


SETTINGS = (
    Setting(
        "MLWF_SERVICE", "Address of the service: `unix:///path/service.sock` or `https://…`; `unix:///run/aihub/service.sock` by default."
    ),
    Setting("MLWF_CA_FILE", "CA bundle for the service's certificate; the host's own by default."),
    Setting("MLWF_MUNGE_UID", "User or uid of the service's account: MUNGE proves who you are to a service on another host."),
    Setting("MLWF_MUNGE_SOCKET", "munged's socket, where it is not in its default place."),
    Setting("MLWF_TOKEN_FILE", "File (0600) with an API token from the administrators, where there is no MUNGE."),
    Setting("MLWF_TOKEN", "The API token itself; goes before all others."),
    Setting("MLWF_SETTINGS", "Your settings file; `~/.config/mlwf/settings.yml` by default. The site's is `/etc/aihub/mlwf.yml`."),
    Setting("MLWF_LEASE_SECONDS", "How long the lease of a job holds without being renewed; 900 by default."),
    Setting("LC_ALL", "Language of messages (`ja…` is Japanese, all else English); also `LC_MESSAGES` and `LANG`, the first that is set."),
    Setting("LC_MESSAGES", "See `LC_ALL`."),
    Setting("LANG", "See `LC_ALL`."),
    Setting("MLFLOW_TRACKING_URI", "The tracking server of a `models:/…` package."),
    Setting("MLFLOW_TRACKING_USERNAME", "User of the tracking server; goes before `~/.mlflow/credentials`."),
    Setting("MLFLOW_TRACKING_PASSWORD", "The user's password; goes before `~/.mlflow/credentials`."),
    Setting(
        "MLFLOW_TRACKING_TOKEN",
        "Bearer token, where no user name and password are set beside it; goes before `~/.mlflow/credentials` (not in MLflow itself).",
    ),
    Setting("MLFLOW_TRACKING_INSECURE_TLS", "`true`: the tracking server's certificate is not checked."),
    Setting("MLFLOW_TRACKING_SERVER_CERT_PATH", "CA bundle for the tracking server."),
    Setting("MLFLOW_S3_ENDPOINT_URL", "Address of the object store; goes before what the tracking server says."),
    Setting("MLFLOW_S3_IGNORE_TLS", "`true`: the object store's certificate is not checked."),
    Setting("AWS_ENDPOINT_URL_S3", "Address of the object store, where `MLFLOW_S3_ENDPOINT_URL` is not set."),
    Setting("AWS_ENDPOINT_URL", "Address of the object store, where neither is set."),
    Setting("AWS_ACCESS_KEY_ID", "Key of the object store: for reading a model, and for `mlwf server create` and `storage`."),
    Setting("AWS_SECRET_ACCESS_KEY", "Its secret."),
    Setting("AWS_SESSION_TOKEN", "Marks a temporary key: good for reading, refused for a server."),
    Setting("AWS_SHARED_CREDENTIALS_FILE", "Another file than `~/.aws/credentials`."),
    Setting("AWS_REGION", "Region of the object store, where the tracking server does not say; `us-east-1` by default."),
    Setting("AWS_DEFAULT_REGION", "See `AWS_REGION`."),
    Setting("AWS_CA_BUNDLE", "CA bundle for the object store."),
    Setting("REQUESTS_CA_BUNDLE", "CA bundle for everything else."),
    Setting("CURL_CA_BUNDLE", "See `REQUESTS_CA_BUNDLE`."),
    Setting("PATH", "Where Apptainer or Singularity and mksquashfs are found."),
    Setting(
        "MLWF_CONTAINER_TOOL",
        "The command of Apptainer or Singularity, where it is not the first of `apptainer` and `singularity` in `PATH`.",
    ),
    Setting("MLWF_COMPRESSION", "How images are packed, where `--compression` does not say: `auto`, `gzip` or `zstd`."),
    Setting(
        "MLWF_CACHE", "Folder of bases, wheels and images for `mlwf_create_image`; `XDG_CACHE_HOME/mlwf` or `~/.cache/mlwf` by default."
    ),
    Setting("XDG_CACHE_HOME", "See `MLWF_CACHE`."),
    Setting("MLWF_SHARED_CACHE", "Folders of the site, `:` between them, that are read where the user's own cache has nothing."),
    Setting(
        "MLWF_PYTHONS", "Folder in which the site keeps movable Pythons, each in a folder named by its version (`3.11.7/bin/python3.11`)."
    ),
    Setting(
        "APPTAINER_DOCKER_USERNAME", "User of the base image's registry; also `SINGULARITY_DOCKER_USERNAME`, and what `docker login` wrote."
    ),
    Setting("APPTAINER_DOCKER_PASSWORD", "Its password; also `SINGULARITY_DOCKER_PASSWORD`."),
    Setting("DOCKER_HOST", "Socket of the Docker daemon for `docker-daemon:` bases; `unix:///var/run/docker.sock` by default."),
    Setting(
        "UV_DEFAULT_INDEX",
        "Package index for `mlwf_create_image`; uv's other variables of indexes (`UV_INDEX`, `UV_FIND_LINKS` …) hold too.",
    ),
    Setting("UV_FIND_LINKS", "Folder of wheels beside the index; read while fetching and installing."),
    Setting(
        "SLURM_CPUS_PER_TASK",
        "Processors for packing an image; also `NSLOTS` (Grid Engine) and `NCPUS` (PBS). Outside of a job at most 8 are used.",
    ),
    Setting("HOME", "Where `.mlflow/credentials` and `.aws/credentials` are."),
    Setting(
        "APPTAINER_TMPDIR",
        "Where `mlwf_create_image` unpacks a base image, where `--tmpdir` is not given; then `SINGULARITY_TMPDIR`, `SLURM_TMPDIR`, "
        "`TMPDIR`, `PBS_JOBDIR`, `/tmp`, `/var/tmp`: the first that is local and has room.",
    ),
    Setting("SINGULARITY_TMPDIR", "See `APPTAINER_TMPDIR`."),
    Setting("SLURM_TMPDIR", "See `APPTAINER_TMPDIR`."),
    Setting("TMPDIR", "See `APPTAINER_TMPDIR`."),
    Setting("PBS_JOBDIR", "See `APPTAINER_TMPDIR`."),
    Setting("SLURM_CPUS_ON_NODE", "See `SLURM_CPUS_PER_TASK`."),
    Setting("NSLOTS", "See `SLURM_CPUS_PER_TASK`."),
    Setting("NCPUS", "See `SLURM_CPUS_PER_TASK`."),
    Setting("UV_TORCH_BACKEND", "Which builds of PyTorch (`cu128`, `cpu` …), where the model does not say; uv's word."),
)


def environment() -> Mapping[str, str]:
    """The process's environment. Everything else is given it, so that a test (or the console) can give another."""
    return os.environ
