"""A BASIC-auth user of a tracking server."""

from dataclasses import dataclass

from mlwf.secret import Secret


@dataclass(frozen=True)
class User:
    user_name: str
    password: Secret
