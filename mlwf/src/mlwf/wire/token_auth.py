"""A token, of the service or of a tracking server, as a request carries it."""

import requests
from requests.auth import AuthBase

from mlwf.secret import Secret


class TokenAuth(AuthBase):
    """`Authorization: Bearer …`."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token.reveal()}"
        return request
