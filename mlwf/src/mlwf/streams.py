"""The three streams of a command: closed, full, or of a narrow locale."""

import codecs
import contextlib
import errno
import os
import sys

from mlwf.errors import with_cure
from mlwf.i18n import _

SIGNS = {"✓": "+", "✗": "x", "·": "-", "→": ">", "↶": "<", "…": "..."}
"""What is printed instead where the locale has no such sign: whether a check is good or failed is told by its mark alone."""


def print_anything() -> None:
    """From now on nothing that is printed ends in a traceback, a help page neither: where a stream was closed (`>&-`, a daemon's) it is
    read by nobody, a narrow locale shows other signs for what it has none for, and a path that is no text is printed as it is.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open_to_nowhere(number, name)
    codecs.register_error("mlwf", _other_signs)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="mlwf")  # type: ignore[union-attr]  # a program's own streams are text


def _open_to_nowhere(number: int, name: str) -> None:
    """The next file that is opened would get the number, and be what other programs write their words into: here, and in a program that
    is started.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    os.set_inheritable(number, True)
    setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


def _other_signs(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101  # nothing is read with it
    letter = error.object[error.start]
    if "\udc80" <= letter <= "\udcff":  # what Python makes of a byte in a path of another character set
        return os.fsencode(letter), error.start + 1
    return SIGNS.get(letter, "?"), error.start + 1


def no_room(error: BaseException) -> str | None:
    """The sentence for what finds no room where it is written, or in the character set there; None for any other error. Into a full place
    nothing is printed any more.
    """
    if isinstance(error, UnicodeEncodeError):
        words = _("A name or text has characters that the character set in use here ({charset}) lacks")
        return with_cure(words.format(charset=error.encoding), _("Write names in UTF-8, and run it again with LC_ALL=C.UTF-8."))
    if not isinstance(error, OSError) or error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return None
    _print_no_more()
    words = _("The output, or a file that belongs to it, cannot be written: {why}").format(why=error.strerror)
    return with_cure(words, _("Free some space, or send the output elsewhere."))


def _print_no_more() -> None:
    """Where stdout has no room Python would say so once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
