"""Looks at paths that may lie below a folder which is closed to this user, or be too long: `Path` raises OSError for those."""

from collections.abc import Callable
from pathlib import Path


def look(question: Callable[[], bool]) -> tuple[bool, str]:
    """What `path.is_dir` and its like answer; and where they cannot tell, why."""
    try:
        return question(), ""
    except OSError as error:
        return False, error.strerror or str(error)


def entries(folder: Path, pattern: str) -> list[Path]:
    """What can be seen in the folder of such names: nothing where it cannot be read. What is to be made there tells why."""
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []
