"""A model package straight from a tracking server's registry: models:/NAME/VERSION or models:/NAME@ALIAS."""

import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

from mlwf.errors import WrongUseError
from mlwf.export.registry import ModelVersion
from mlwf.export.run import Wanted, fetch_artifacts
from mlwf.i18n import _
from mlwf.image.cache import remove_tree
from mlwf.image.model.progress import Progress

# As MLflow reads it: the name as it is, which may hold an @ and a %.
MODEL = re.compile(r"models:/+(?P<name>[^/]+)(?:/(?P<number>[0-9]+)|@(?P<alias>[^/@]+))")


class _Report:
    """An export's reports, as a step's progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def found(self, version: ModelVersion) -> None:
        pass

    def begins(self, files: int, size: int | None, through: str) -> None:  # noqa: ARG002  # the export's reporter has them
        self._progress.begins(size)

    def arrived(self, count: int) -> None:
        self._progress.arrived(count)


def fetch_registered(source: str, into: Path, environ: Mapping[str, str], progress: Progress) -> None:
    """Downloads the model version's files into the new folder `into`. Raises MlwfError."""
    match = MODEL.fullmatch(source)
    if not match:
        raise WrongUseError(
            _("{source} is not a registered model").format(source=repr(source)), cure=_("Write models:/NAME/VERSION or models:/NAME@ALIAS.")
        )
    url = environ.get("MLFLOW_TRACKING_URI", "")
    if not url:
        raise WrongUseError(
            _("For models:/… the tracking server must be known"), cure=_("Set MLFLOW_TRACKING_URI to the URL that Service List shows.")
        )
    wanted = Wanted(url, match["name"], match["number"], match["alias"], into.parent)
    fetch_artifacts(wanted, environ, _Report(progress), into)


def pack_registered(source: str, archive: Path, environ: Mapping[str, str], progress: Progress) -> None:
    """Downloads the model version, and makes the new file `archive` of it: a tar. Raises MlwfError; the files may be left then."""
    files = archive.with_name(f"{archive.name}.files")
    fetch_registered(source, files, environ, progress)
    with tarfile.open(archive, "x") as tar:
        tar.add(files, arcname=".")
    remove_tree(files)
