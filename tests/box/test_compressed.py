"""Traces that come compressed: they are all that MLflow unpacks."""

import gzip
import json
import zlib
from collections.abc import Callable

import pytest
import requests

from tests.support.box import Box
from tracking_server.mlflow_process.compressed import LIMIT, UnpackError, unpacked

Pack = Callable[[bytes], bytes]
SPAN = {"traceId": "01" * 16, "spanId": "02" * 8, "name": "n", "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
TRACE = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [SPAN]}]}]}).encode()


def raw(body: bytes) -> bytes:
    """Deflated without a frame, as some clients do."""
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(body) + packing.flush()


def in_parts(body: bytes) -> bytes:
    return gzip.compress(body[:10]) + gzip.compress(body[10:])


WAYS = {"gzip": ("gzip", gzip.compress), "parts": ("gzip", in_parts), "deflate": ("deflate", zlib.compress), "raw": ("deflate", raw)}


def send(box: Box, body: bytes, encoding: str) -> requests.Response:
    headers = {"Content-Type": "application/json", "X-MLflow-Experiment-Id": "0", "Content-Encoding": encoding}
    return box.request("POST", "/v1/traces", data=body, headers=headers)


@pytest.mark.box
@pytest.mark.parametrize(("encoding", "pack"), WAYS.values(), ids=WAYS)
def test_traces_are_unpacked_and_no_more_than_may_come_plainly(box: Box, encoding: str, pack: Pack) -> None:
    assert send(box, pack(TRACE), encoding).status_code == 200
    packed = pack(TRACE + b" " * LIMIT)
    assert len(packed) < LIMIT / 500
    refused = send(box, packed, encoding)
    assert (refused.status_code, refused.json()["error_code"]) == (413, "INVALID_PARAMETER_VALUE"), refused.text
    assert "once it is unpacked" in refused.json()["message"]


@pytest.mark.box
def test_what_cannot_be_unpacked_is_said(box: Box) -> None:
    for body, encoding in ((b"x", "gzip"), (gzip.compress(TRACE)[:-4], "gzip"), (b"x", "deflate"), (zlib.compress(TRACE)[:-9], "deflate")):
        refused = send(box, body, encoding)
        assert (refused.status_code, refused.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), refused.text
    assert send(box, b"x", "br").status_code == 400


@pytest.mark.parametrize(("encoding", "pack"), WAYS.values(), ids=WAYS)
def test_the_bound_is_to_the_byte(encoding: str, pack: Pack) -> None:
    body = bytes(100_000)
    assert unpacked(pack(body), encoding, 100_000) == body
    with pytest.raises(UnpackError, match="larger"):
        unpacked(pack(body), encoding, 99_999)
