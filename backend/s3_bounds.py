"""Bounds on what an object store answers. Its address may be a user's choice, and boto3 reads an answer whole, however long it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from botocore.exceptions import BotoCoreError, HTTPClientError
from urllib3.exceptions import HTTPError

ANSWER_BYTES: Final = 8 * 1024 * 1024
"""A list of buckets or of one object is far below this."""
ANSWER_SECONDS = 30.0


class EndlessAnswerError(BotoCoreError):
    """The answer is larger than any that is expected, or takes longer."""

    fmt = "the answer does not end"


def bound_answers(client: Any) -> None:
    """Make the client give up on answers beyond the bounds. Bodies of objects are streams, and read by whoever asked for them."""
    session = client._endpoint.http_session  # noqa: SLF001 (botocore has no public way to send by hand)

    def send(request: Any, **_: object) -> Any:
        if request.stream_output:
            return None
        request.stream_output = True
        answer = session.send(request)
        answer.raw = _Bounded(answer.raw)
        return answer

    client.meta.events.register("before-send.s3", send)


class _Bounded:
    """An answer's body, for botocore to read."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def stream(self) -> Iterator[bytes]:
        """Chunks until the end. Error: ``EndlessAnswerError``."""
        began, size = time.monotonic(), 0
        while chunk := self._read():
            yield chunk
            size += len(chunk)
            if size > ANSWER_BYTES or time.monotonic() - began > ANSWER_SECONDS:
                self._raw.close()
                raise EndlessAnswerError

    def _read(self) -> bytes:
        try:
            chunk: bytes = self._raw.read1(65536)
        except HTTPError as error:  # botocore wraps urllib3's errors where it sends; here we do
            raise HTTPClientError(error=error) from error
        return chunk
