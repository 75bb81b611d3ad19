"""Reading web addresses that somebody typed, or that a stranger's file holds."""

import contextlib
import re
from urllib.parse import SplitResult, urlsplit


def split_url(url: str) -> SplitResult:
    """The parts of an address. One whose host or port cannot be read has none: neither scheme nor host."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        _port = parts.port  # looked at only when it is asked for
        return parts
    return urlsplit("")


def without_keys(url: str) -> str:
    """The address as it may be shown: without what may be a key, which is user, password, query and fragment."""
    return re.sub(r"//[^/@]*@", "//", re.split(r"[?#]", url, maxsplit=1)[0])
