"""Export model and Create image on the console's own host, as the caller: `mlwf job` in the background, with its progress in a file.

Passenger answers one request at a time and may end this process when nobody asks, so nothing here is remembered: a job is a folder.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from flask import g
from mlwf.errors import WrongUseError
from mlwf.i18n import use_language
from mlwf.job.request import NEEDED, RULES, JobRequest, meaning
from mlwf.transfer.lease_file import server_time

from ood_app.problems import Problem
from ood_app.settings import Settings, for_programs
from ood_app.texts import _

TASKS: Final = ("export", "image")
MOST_RUNNING: Final = 4
KEPT_DAYS: Final = 7
SILENT_SECONDS: Final = 60.0
_LARGEST: Final = 1 << 20
_children: Final[dict[str, subprocess.Popen[bytes]]] = {}
"""Those that this process started, by the job's id: asked now and then, so that one that has ended is no zombie."""
_MLWF: Final = "from mlwf.cli.program import mlwf; mlwf()"
"""What the command `mlwf` runs: it looks for its own packages before those of PYTHONPATH."""
_ID: Final = re.compile(r"job_[0-9a-f]{16}")


def start(body: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Starts a job and answers it as the page shows operations. Raises Problem with the fields to blame."""
    if not settings.local_jobs:
        raise Problem(404, "no_local_jobs", _("The console runs no jobs here."), _("Use the lines that it shows, on a compute node."))
    request = _request(body)
    _forget_old()
    running = [each for each in map(view, _known()) if each and each["state"] == "running"]
    if len(running) >= MOST_RUNNING:
        raise Problem(409, "too_many_jobs", _("{count} jobs are running already.").format(count=len(running)), _("Wait for one of them."))
    job_id = f"job_{secrets.token_hex(8)}"
    folder = _place() / job_id
    try:
        _children[job_id] = _launched(folder, request, for_programs(settings, g.language))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)  # there may be nothing of it; `view` takes what is left for no job
        what = _("The job cannot be started: {why}.").format(why=error.strerror)
        raise Problem(507, "job_not_started", what, _("Free some space in your home if it is full, then start it again.")) from error
    return _shown(job_id, folder, request.as_json(), {"state": "running"})


def _launched(folder: Path, request: JobRequest, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """The job's program, in a folder of its own. Raises OSError, and may leave the folder then."""
    folder.mkdir(mode=0o700, parents=True)
    (folder / "request.json").write_text(json.dumps(request.as_json()), encoding="utf-8")
    with (folder / "output.log").open("wb") as output:
        argv = [sys.executable, "-c", _MLWF, "job", "request.json", "--progress", "progress.json", "--note", folder.name]
        return subprocess.Popen(
            argv, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def is_job(identifier: str) -> bool:
    """Whether an operation's id is that of a job here."""
    return _ID.fullmatch(identifier) is not None


def view(job_id: str) -> dict[str, Any] | None:
    """A job as the page shows operations; None for one that is not there any more, or never began: its request cannot be read."""
    for name, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(name, None)
    folder = _place() / job_id
    request = _read(folder / "request.json") if is_job(job_id) else None
    if request is None:
        return None
    told = _read(folder / "progress.json") or {"state": "running"}
    if told["state"] == "failed" and job_id in _children:
        told |= {"state": "running", "error": None}  # it is about to say why in its log, and a page asks no more for one that has failed
    if told["state"] == "running" and job_id not in _children and _age(folder) > SILENT_SECONDS:
        told |= {"state": "failed", "error": {"detail": _("The job gave no sign of life for a minute."), "cure": _("Start it again.")}}
    return _shown(job_id, folder, request, told)


def _read(path: Path) -> dict[str, Any] | None:
    """What the file says; None where there is none, or less than a whole one: a full disk leaves it empty."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")[:_LARGEST])
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found


def _shown(job_id: str, folder: Path, request: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    began = dt.datetime.fromtimestamp((folder / "request.json").stat().st_mtime, dt.UTC).isoformat(timespec="milliseconds")
    error = told.get("error")
    return {
        "id": job_id,
        "kind": request["task"],
        "group": request.get("group_name", ""),
        "env_name": request.get("env_name", ""),
        "server_id": None,
        "state": told["state"],
        "message": told.get("result") or "",
        "created_at": began,
        "finished_at": told.get("finished_at"),
        "bytes": told.get("bytes"),
        "total": told.get("total"),
        "steps": told.get("steps", []),
        "error": {"code": "job_failed", "log": _log(folder), **error} if error else None,
    }


def _request(body: dict[str, Any]) -> JobRequest:
    given = {name: value.strip() for name, value in body.items() if name in RULES and isinstance(value, str)}
    given["output_dir"] = given.get("output_dir") or str(Path.home() / "mlflow")
    with use_language(g.language):
        if given.get("task") not in TASKS:
            raise Problem(422, "not_valid", _("The console does not know this job."), _("Reload the page."))
        wrong = [name for name, value in given.items() if value and not re.fullmatch(RULES[name], value)]
        wrong += [name for name in NEEDED[given["task"]] if not given.get(name)]
        if wrong:
            fields = {name: meaning(name) for name in wrong}
            raise Problem(422, "field_wrong", _("Some fields cannot be used."), _("Correct the fields that are marked."), fields=fields)
        try:
            return JobRequest.from_json(given)
        except WrongUseError as error:
            raise Problem(422, "not_valid", error.what, error.cure) from error


def _place() -> Path:
    return Path.home() / ".local" / "state" / "aihub" / "jobs"


def _known() -> list[str]:
    place = _place()
    return sorted(each.name for each in place.iterdir()) if place.is_dir() else []


def _age(folder: Path) -> float:
    """Seconds since the job last said something, or since its folder was made. Another process may remove it meanwhile."""
    newest = max(map(_changed_at, folder.glob("*.json")), default=0.0) or _changed_at(folder)
    age = dt.datetime.now(dt.UTC).timestamp() - newest
    if age > SILENT_SECONDS:  # so it seems by this host's clock: a home may be on a file server that has another one
        with contextlib.suppress(OSError):
            age = server_time(folder.parent) - newest
    return age


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _forget_old() -> None:
    for name in _known():
        if is_job(name) and _age(_place() / name) > KEPT_DAYS * 86400:
            shutil.rmtree(_place() / name, ignore_errors=True)  # such as a file that is open on another host; the next start tries again


def _log(folder: Path) -> str:
    try:
        text = (folder / "output.log").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-20:])
