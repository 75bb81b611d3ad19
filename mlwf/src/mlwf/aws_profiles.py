"""The profiles of the caller's AWS credentials file, read as the caller: names for a choice, and one profile's key pair."""

import configparser
from dataclasses import dataclass
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.secret import Secret
from mlwf.settings import environment


class ProfileError(MlwfError):
    """The credentials file or a profile in it cannot be used. Never quotes the file's content."""


@dataclass(frozen=True)
class KeyPair:
    access_key_id: str
    secret_access_key: Secret


def credentials_path() -> Path:
    """`AWS_SHARED_CREDENTIALS_FILE`, else `~/.aws/credentials`."""
    return Path(environment().get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()


def profile_names(path: Path | None = None) -> list[str]:
    """Names of the profiles that hold a key pair, in the file's order; none where there is no file. Raises ProfileError."""
    path = path or credentials_path()
    if not path.exists():
        return []
    parser = _parse(path)
    return [name for name in parser.sections() if _pair(parser, name)]


def key_pair(profile: str, path: Path | None = None) -> KeyPair:
    """The key pair of a profile. Raises ProfileError: no file, no such profile (it lists the known), or no lasting key in it."""
    path = path or credentials_path()
    parser = _parse(path)
    what = _("The profile {profile} cannot be used").format(profile=profile)
    if profile not in parser.sections():
        known = ", ".join(parser.sections()) or "-"
        raise ProfileError(
            what, _("{path} has no such profile").format(path=path), _("Choose one that it has: {known}.").format(known=known)
        )
    if parser.get(profile, "aws_session_token", fallback=""):
        raise ProfileError(
            what, _("its key is a temporary one and would stop working"), _("Use a profile with an access key that does not expire.")
        )
    pair = _pair(parser, profile)
    if pair is None:
        raise ProfileError(
            what,
            _("it lacks aws_access_key_id or aws_secret_access_key"),
            _("Add both to [{profile}] in {path}.").format(profile=profile, path=path),
        )
    return pair


def _pair(parser: configparser.RawConfigParser, profile: str) -> KeyPair | None:
    access = parser.get(profile, "aws_access_key_id", fallback="") or ""
    secret = parser.get(profile, "aws_secret_access_key", fallback="") or ""
    return KeyPair(access.strip(), Secret(secret.strip())) if access.strip() and secret.strip() else None


def _parse(path: Path) -> configparser.RawConfigParser:
    what = _("{where} cannot be read").format(where=path)
    # A [DEFAULT] section is a profile like any other here, as for the AWS tools.
    parser = configparser.RawConfigParser(default_section="\0", strict=False)
    try:
        parser.read_string(path.read_text("utf-8"))
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or next((number for number, _text in getattr(error, "errors", [])), "?")
        # The parser's own words quote the line, which may be a key.
        why = _("line {line} is neither a [profile] nor a name = value").format(line=line)
        raise ProfileError(what, why, _("Correct the file.")) from None
    except UnicodeDecodeError:
        raise ProfileError(what, _("it is not UTF-8 text"), _("Save it as UTF-8.")) from None
    except OSError as error:
        raise ProfileError(what, error.strerror or str(error), _("Make it with 'aws configure', or give the keys by hand.")) from error
    return parser
