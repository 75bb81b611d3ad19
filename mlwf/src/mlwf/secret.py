"""A secret is a type: it can be carried and compared, and is shown only on purpose."""

import hmac
from typing import NoReturn


class Secret:
    """A password or key. `repr`, `str` and formatting are redacted; `reveal()` gives the text. It cannot be pickled."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    __hash__ = None  # type: ignore[assignment]  # a hash of a secret in a set or a key helps only those who guess

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied into a file")

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "Secret":
        return self


def one_token(text: str) -> Secret | None:
    """The token that a text is, without the white space around it; None for what no header can carry, or what is more than one."""
    token = text.strip()
    return Secret(token) if token and token.isascii() and token.isprintable() and " " not in token else None
