"""What clients send compressed is bounded as what they send plainly is: MLflow unpacks a body of traces whole, whatever becomes of it.

It is done here in MLflow's place: its way with gzip copies what is left for each part of the body, and there may be millions.
"""

from __future__ import annotations

import functools
import gzip
import io
import zlib
from collections.abc import Callable, Mapping

from tracking_server.nginx import BODY_MEGABYTES

LIMIT = BODY_MEGABYTES * 1024 * 1024
_TOO_LARGE = "The request is larger than this server takes, once it is unpacked: send less at once."
_BROKEN = "The request's body cannot be unpacked: send it whole, and in the way that Content-Encoding says."


class UnpackError(Exception):
    """A body cannot be unpacked, or not within the bound: the answer's status, and what to do."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def install() -> None:
    """Into this process's MLflow, once, before it serves. An encoding that MLflow does not know it refuses itself."""
    from mlflow.server import otel_api  # type: ignore[import-not-found]  # MLflow is in the box's environment only

    unpack = otel_api.decompress_otlp_body

    @functools.wraps(unpack)
    def unpack_bounded(body: bytes, encoding: str) -> bytes:
        found: bytes = unpacked(body, encoding) if encoding in _WAYS else unpack(body, encoding)
        return found

    otel_api.decompress_otlp_body = unpack_bounded


def unpacked(body: bytes, encoding: str, limit: int = LIMIT) -> bytes:
    """The body. Error: ``UnpackError``."""
    try:
        found = _WAYS[encoding](body, limit + 1)
    except (OSError, EOFError, zlib.error):
        raise UnpackError(400, _BROKEN) from None
    if len(found) > limit:
        raise UnpackError(413, _TOO_LARGE)
    return found


def _gzip(body: bytes, most: int) -> bytes:
    with gzip.open(io.BytesIO(body)) as file:
        return file.read(most)


def _deflate(body: bytes, most: int) -> bytes:
    """As it should be, and as some clients send it: without its frame."""
    try:
        return _inflate(body, most, zlib.MAX_WBITS)
    except (EOFError, zlib.error):
        return _inflate(body, most, -zlib.MAX_WBITS)


def _inflate(body: bytes, most: int, window: int) -> bytes:
    unpacking = zlib.decompressobj(window)
    found = unpacking.decompress(body, most)
    if len(found) < most and not unpacking.eof:
        raise EOFError
    return found


_WAYS: Mapping[str, Callable[[bytes, int], bytes]] = {"gzip": _gzip, "deflate": _deflate}
