"""Names that a server or a bucket supplies are hostile until checked."""

from collections.abc import Iterable

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.line import is_one_line

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 3000


class UnsafePathError(MlwfError):
    """A name in the model would leave the folder or confuse who reads it."""


def check_path(path: str) -> str:
    """Answers `path` when it is a relative path that stays where it is put. Raises UnsafePathError."""
    why = _fault(path)
    if why:
        raise UnsafePathError(
            _("The model holds a file with an unsafe name, {path}").format(path=repr(path[:200])),
            why,
            _("Nothing was written. Ask whoever made the model version, and log the model again."),
        )
    return path


def check_tree(paths: Iterable[str]) -> None:
    """Checks every path, and that no name is both a file and a folder, or there twice. Raises UnsafePathError."""
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        check_path(path)
        parts = path.split("/")
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
        if path in files:
            raise UnsafePathError(_("The model lists the file {path} twice").format(path=repr(path)))
        files.add(path)
    for path in files & folders:
        raise UnsafePathError(
            _("The model has {path} both as a file and as a folder").format(path=repr(path)), cure=_("Remove one of them in the bucket.")
        )


def _fault(path: str) -> str:
    if not path or path.startswith("/"):
        return _("it is empty or absolute")
    if any(part in {"", ".", ".."} for part in path.split("/")):
        return _("it has an empty part, '.' or '..'")
    if not is_one_line(path):
        return _("it has control characters")
    if len(path.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in path.split("/")):
        return _("it is too long for a file system")
    return ""
