"""`mlwf_create_image` as a program of the job's: what it tells becomes the job's progress."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from mlwf.ending import Held
from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.steps import words
from mlwf.job.progress import Progress

KEPT_LINES = 20


def follow(argv: list[str], environ: Mapping[str, str], progress: Progress) -> dict[str, Any]:
    """Runs the program, tells its steps and their bytes, and answers its result. Raises MlwfError.

    It does not outlive this one: no signal comes but while it is listened to.
    """
    with Held() as held:
        process = _started(argv, environ)
        with process:
            try:
                with held.lifted():
                    return _heard(process, progress)
            except BaseException:
                process.terminate()
                process.wait()
                raise


def _started(argv: list[str], environ: Mapping[str, str]) -> "subprocess.Popen[str]":
    try:
        return subprocess.Popen(argv, env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    except OSError as error:
        what = _("{command} cannot be run: {why}").format(command="mlwf_create_image", why=error.strerror)
        raise MlwfError(what, cure=_("Update mlwf, or tell the admins.")) from error


def _heard(process: "subprocess.Popen[str]", progress: Progress) -> dict[str, Any]:
    """Its result, when it has ended."""
    printed: list[str] = []
    said: list[str] = []
    failure: MlwfError | None = None
    reader = threading.Thread(target=lambda: printed.extend(process.stdout or ()), daemon=True)
    reader.start()
    for line in process.stderr or ():
        told = _told(line)
        if told is None:
            _print(line)
            said = [*said, line.strip()][-KEPT_LINES:]
        elif told["state"] == "warns":
            _print(f"{told['text']}\n")
        elif told["state"] == "failed":
            failure = MlwfError(told["what"], told["why"], told["cure"])
        elif "step" in told:
            _tell(told, progress)
    status = process.wait()
    reader.join()
    if status != 0:
        raise failure or MlwfError(_("The image was not created"), " ".join(said), _("The job's output has all of it."))
    found: dict[str, Any] = json.loads("".join(printed))
    return found


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # the job's own output may lie where no space is left, and the image elsewhere
        sys.stderr.write(line)


def _tell(told: dict[str, Any], progress: Progress) -> None:
    if told["state"] == "begins":
        progress.detail(words(told["step"]))
    progress.tell(bytes=told.get("bytes"), total=told.get("total"))


def _told(line: str) -> dict[str, Any] | None:
    """What the program tells in that line; None: it is no line for machines."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and "state" in told else None
