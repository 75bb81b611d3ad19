"""Bearer tokens as a box knows them, and whom a box takes one for."""

import hashlib
import json

import requests

from tests.support.box import Box


def bearer(box: Box, text: str) -> str | None:
    """The principal of a bearer token; None for nobody."""
    answer = requests.get(f"{box.url}/-/info", headers={"Authorization": f"Bearer {text}"}, timeout=30)
    assert answer.status_code in (200, 401)
    return str(answer.json()["principal"]) if answer.status_code == 200 else None


def tokens_document(*tokens: tuple[str, str, str, float]) -> str:
    """Of id, text, user, expiry."""
    entries = [
        {"id": token_id, "sha256": hashlib.sha256(text.encode()).hexdigest(), "user": user, "expires": expires}
        for token_id, text, user, expires in tokens
    ]
    return json.dumps({"tokens": entries})
