"""Reading the errors of requests and urllib3."""

import requests


def system_error(error: BaseException) -> OSError | None:
    """The operating system's own error at the bottom of what requests and urllib3 wrapped around it."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, OSError) and not isinstance(each, requests.RequestException):
            return each
        waiting.extend(arg for arg in (*each.args, each.__cause__, each.__context__) if isinstance(arg, BaseException))
    return None
