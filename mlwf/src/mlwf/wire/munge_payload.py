"""What a MUNGE credential of a request is made for: the same text is written by the client and expected by the service."""

import hashlib

SCHEME = "MUNGE"
"""The word before the credential in the `Authorization` header."""
_FORM = "aihub1"


def payload(*, method: str, service: str, target: str, body: bytes) -> str:
    """The credential's payload for one request. `service`: the address before `/api/v1`, without a slash at its end; `target`: path and
    query as they are sent. Digests, so that it stays short and holds nothing of the request.
    """
    head = "\n".join((method.upper(), service.rstrip("/"), target))
    return f"{_FORM} {hashlib.sha256(head.encode()).hexdigest()} {hashlib.sha256(body).hexdigest()}"


def head_of(payload_text: str) -> str:
    """The part that says method, service and target: it can be compared before the body is read."""
    return payload_text.rpartition(" ")[0]
