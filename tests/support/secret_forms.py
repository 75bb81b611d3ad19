"""The forms in which a secret may have been written down where it does not belong."""

import base64
from urllib.parse import quote, quote_plus


def forms_of(secret: str, *users: str) -> set[str]:
    """As it is, as in an address or a form's body, and as the users' headers of BASIC authentication have it."""
    logins = (base64.b64encode(f"{user}:{secret}".encode()).decode().rstrip("=") for user in users)
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), *logins}
