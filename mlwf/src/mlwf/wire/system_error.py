"""Reading the errors that libraries wrap around one another."""

import re
from collections.abc import Iterator

import requests


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it was wrapped around, by botocore (`kwargs`), urllib3 (`reason`, `args`) and Python itself."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = (*each.args, each.__cause__, each.__context__, getattr(each, "reason", None), *getattr(each, "kwargs", {}).values())
        waiting.extend(part for part in inner if isinstance(part, BaseException))


def system_error(error: BaseException) -> OSError | None:
    """The operating system's own error at the bottom of what requests and urllib3 wrapped around it."""
    own = (each for each in causes(error) if isinstance(each, OSError) and not isinstance(each, requests.RequestException))
    return next(own, None)


def address_fault(error: Exception) -> str:
    """What requests and urllib3 say of an address that is none, without a proxy's login, which they quote, or a part of it as its host."""
    return re.sub("'.*' is not", "… is not", re.sub("//.*@", "//…@", str(error)))
