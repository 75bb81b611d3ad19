"""Bounds what uploads and downloads put on the box's disk, and says plainly when there is no room.

MLflow writes an artifact to a temporary file before it goes to the object store, and the same on the way back.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ARTIFACT = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts/.")
_LOOK_EVERY = 8 * 1024 * 1024


class NoRoomError(Exception):
    """An upload did not fit."""


class Spool:
    """`limit` bytes may be in `folder` at once. `promised`: what transfers under way have said and not yet written."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self.promised = 0
        self._lock = threading.Lock()  # uploads are on the event loop, downloads on other threads

    def promise(self, size: int) -> bool:
        """Hold room for a transfer of this size, to be let go by `keep`; False when there is none."""
        with self._lock:
            if not self.has_room(max(1, size)):
                return False
            self.promised += size
            return True

    def keep(self, size: int) -> None:
        """So much of what was promised is written, or will not come."""
        with self._lock:
            self.promised -= size

    def has_room(self, more: int) -> bool:
        return self._used() + self.promised + more <= self._limit

    def _used(self) -> int:
        total, folders = 0, [str(self._folder)]
        while folders:
            try:
                with os.scandir(folders.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        else:
                            total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue  # a transfer ended meanwhile
        return total


class Upload:
    """One upload's share: what was promised for it shrinks as it arrives; without a promise its growth is looked at."""

    def __init__(self, spool: Spool, receive: Receive, declared: int) -> None:
        self._spool = spool
        self._receive = receive
        self._left = declared
        self._unseen = 0

    async def receive(self) -> Message:
        message = await self._receive()
        size = len(message.get("body", b""))
        taken = min(size, self._left)
        self._left -= taken
        self._spool.keep(taken)
        self._unseen += size - taken
        if self._unseen >= _LOOK_EVERY:
            self._unseen = 0
            if not self._spool.has_room(_LOOK_EVERY):
                raise NoRoomError
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
            await answer_no_room(send)
            return
        upload = Upload(self._spool, receive, declared)
        try:
            await self._app(scope, upload.receive, send)
        finally:
            upload.end()


def _content_length(scope: Scope) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


NO_ROOM = "The server has no room for this transfer now: try again later, or send and fetch less at once."


async def answer_no_room(send: Send) -> None:
    body = json.dumps({"error_code": "RESOURCE_EXHAUSTED", "message": NO_ROOM}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"retry-after", b"30")]
    await send({"type": "http.response.start", "status": 507, "headers": headers})
    await send({"type": "http.response.body", "body": body})
