"""Bounds what uploads and downloads put on the box's disk, and says plainly when there is no room.

MLflow writes an artifact to a temporary file before it goes to the object store, and the same on the way back.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tracking_server.mlflow_process.promises import Promises
from tracking_server.replies import TOO_LARGE

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ARTIFACT = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts/.")
_LOOK_EVERY = 8 * 1024 * 1024
NO_ROOM = "The server has no room for this transfer now: try again later, or send and fetch less at once."


class NoRoomError(Exception):
    """A transfer did not fit; says why, and what to do."""


class Spool:
    """`limit` bytes may be in `folder` at once, whoever puts them there. To be made before workers and jobs are forked."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._promises = Promises()

    def promise(self, size: int) -> bool:
        """Hold room for a transfer of this size, to be let go by `keep`; False when there is none."""
        with self._promises.alone():
            if not self.has_room(max(1, size)):
                return False
            self._promises.add(size)
            return True

    def keep(self, size: int) -> None:
        """So much of what was promised is written, or will not come."""
        self._promises.add(-size)

    def has_room(self, more: int) -> bool:
        # In this order: what is written meanwhile counts twice, and not in neither.
        return self._promises.total() + self._used() + more <= self._limit

    def words(self, size: int) -> str:
        """Why a transfer of this size does not fit: now, or ever."""
        return TOO_LARGE.format(limit=self._limit) if size > self._limit else NO_ROOM

    def _used(self) -> int:
        total, folders = 0, [str(self._folder)]
        while folders:
            with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:  # of a transfer that ended meanwhile
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += _size(entry)
        return total


def _size(entry: os.DirEntry[str]) -> int:
    """Of a file that may go at any moment: the others in its folder count all the same."""
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


class Upload:
    """One upload's share: what was promised for it shrinks as it arrives; without a promise its growth is looked at."""

    def __init__(self, spool: Spool, receive: Receive, declared: int) -> None:
        self._spool = spool
        self._receive = receive
        self._left = declared
        self._seen = self._unseen = 0

    async def receive(self) -> Message:
        message = await self._receive()
        size = len(message.get("body", b""))
        taken = min(size, self._left)
        self._left -= taken
        self._spool.keep(taken)
        self._unseen += size - taken
        if self._unseen >= _LOOK_EVERY:
            self._seen += self._unseen
            self._unseen = 0
            if not self._spool.has_room(_LOOK_EVERY):
                raise NoRoomError(self._spool.words(self._seen + _LOOK_EVERY))
        return message

    def end(self) -> None:
        self._spool.keep(self._left)
        self._left = 0


class SpoolMiddleware:
    """Answers 507 in MLflow's error shape instead of filling the disk."""

    def __init__(self, app: App, spool: Spool) -> None:
        self._app = app
        self._spool = spool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "PUT" or not _ARTIFACT.match(scope["path"]):
            await self._app(scope, receive, send)
            return
        declared = _content_length(scope)
        if not self._spool.promise(declared):
            await answer_no_room(send, self._spool.words(declared))
            return
        upload = Upload(self._spool, receive, declared)
        try:
            await self._app(scope, upload.receive, send)
        finally:
            upload.end()


def _content_length(scope: Scope) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


def when_again(words: str) -> dict[str, str]:
    """The header of an answer by which a program sees that it fits later; none where waiting does not help."""
    return {"Retry-After": "30"} if words == NO_ROOM else {}


async def answer_no_room(send: Send, words: str) -> None:
    body = json.dumps({"error_code": "RESOURCE_EXHAUSTED", "message": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in when_again(words).items()]
    await send({"type": "http.response.start", "status": 507, "headers": headers})
    await send({"type": "http.response.body", "body": body})
