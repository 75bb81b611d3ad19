"""Reading web addresses that somebody typed, or that a stranger's file holds."""

import contextlib
import re
from urllib.parse import SplitResult, urlsplit

_USUAL_PORTS = {"http": 80, "https": 443}


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


def as_browsers_write(url: str) -> str:
    """An http(s) address that can be read, with its host as a browser names it in `Host` and `Origin`, which are compared letter by letter:
    in lower case, and without the port that is usual for the scheme. The path stays.
    """
    parts = split_url(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    is_usual = parts.port in (None, _USUAL_PORTS.get(parts.scheme))
    return parts._replace(netloc=host if is_usual else f"{host}:{parts.port}").geturl()


def origin_of(url: str) -> str:
    """Of a page at that address, as browsers name it in `Origin`."""
    parts = urlsplit(as_browsers_write(url))
    return f"{parts.scheme}://{parts.netloc}"
