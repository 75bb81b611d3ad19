"""Answers in fewer bytes: a list of 200 servers is a tenth when packed, and nothing before the console need do it.

The page itself is left as it is: it holds the token, and packing a secret beside what others choose tells of the secret by the size.
"""

from __future__ import annotations

import gzip
from typing import Final

from flask import Flask, Response, request

LEAST_BYTES: Final = 1024
LEVEL: Final = 5
PACKED: Final = frozenset({"application/json", "text/css", "text/javascript", "image/svg+xml"})


def compress(app: Flask) -> None:
    """Packs what is worth it, for browsers that say that they can unpack it."""

    @app.after_request
    def pack(response: Response) -> Response:
        if response.status_code != 200 or response.mimetype not in PACKED or not request.accept_encodings.quality("gzip"):
            return response
        response.direct_passthrough = False
        content = response.get_data()
        response.vary.add("Accept-Encoding")
        if len(content) < LEAST_BYTES or "Content-Encoding" in response.headers:
            return response
        response.set_data(gzip.compress(content, LEVEL, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
        response.headers.pop("ETag", None)  # it was of the other bytes
        return response
