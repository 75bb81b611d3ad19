"""basic_auth.yml: the file in which a group keeps the BASIC-auth users of a tracking server. Read and made as the caller."""

import contextlib
import os
import secrets
import stat
from pathlib import Path

import yaml

from mlwf.errors import MlwfError
from mlwf.file_server import link, rename
from mlwf.i18n import _
from mlwf.line import is_one_line
from mlwf.secret import Secret
from mlwf.user import User

MAX_BYTES = 65536
EXAMPLE = "{'user_name': 'alice', 'pass': '…'}"
_KEYS = ("user_name", "pass")


class AuthFileError(MlwfError):
    """The file cannot be read or does not say what it must. `missing` is true where there is no such file. Never quotes its content."""

    def __init__(self, what: str, why: str = "", cure: str = "", *, missing: bool = False) -> None:
        super().__init__(what, why, cure)
        self.missing = missing


def read_auth_file(path: Path) -> list[User]:
    """The users in the file, at least one: one map `{user_name, pass}` or a list of them. Raises AuthFileError."""
    text = _read(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        # The parser's own words may quote the password (an unquoted one that begins with * is an unknown alias).
        mark = error.problem_mark or error.context_mark
        raise _wrong(path, mark, _("this is not YAML")) from None
    except (yaml.YAMLError, RecursionError):
        raise _wrong(path, None, _("this is not YAML")) from None
    if node is None:
        raise _wrong(path, None, _("it is empty"))
    entries = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not entries:
        raise _wrong(path, node.start_mark, _("the list is empty"))
    users = [_user(path, entry) for entry in entries]
    seen: set[str] = set()
    for entry, user in zip(entries, users, strict=True):
        if user.user_name in seen:
            raise _wrong(path, entry.start_mark, _("the user {name} is listed twice").format(name=user.user_name))
        seen.add(user.user_name)
    return users


def open_to_all(path: Path) -> bool:
    """Whether users outside the file's group may read it. Raises OSError."""
    return bool(path.stat().st_mode & stat.S_IROTH)


def _user(path: Path, node: yaml.Node) -> User:
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(path, node.start_mark, _("an entry with user_name and pass was expected"))
    found: dict[str, str] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name not in _KEYS:
            raise _wrong(path, key.start_mark, _("only the keys user_name and pass are known"))
        if name in found:
            raise _wrong(path, key.start_mark, _("{key} is there twice").format(key=name))
        if not isinstance(value, yaml.ScalarNode) or value.tag != "tag:yaml.org,2002:str" or not value.value:
            raise _wrong(path, value.start_mark, _("{key} must be text in quotes, and not empty").format(key=name))
        found[name] = value.value
    for name in _KEYS:
        if name not in found:
            raise _wrong(path, node.start_mark, _("{key} is missing").format(key=name))
    if ":" in found["user_name"] or not is_one_line(found["user_name"]):
        raise _wrong(path, node.start_mark, _("user_name may hold neither a colon nor control characters"))
    return User(found["user_name"], Secret(found["pass"]))


def _wrong(path: Path, mark: yaml.Mark | None, why: str) -> AuthFileError:
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    cure = _("Write {example}, or a list of such.").format(example=EXAMPLE)
    return AuthFileError(_("{where} cannot be used").format(where=where), why, cure)


def _read(path: Path) -> str:
    what = _("{where} cannot be read").format(where=path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AuthFileError(what, _("it is not a regular file"), _("Put a text file there."))
            with open(descriptor, "rb", closefd=False) as file:  # a descriptor, not a path
                content = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        cure = _("Make it with {example} in it, or run 'mlwf server auth GROUP/ENV --generate'.").format(example=EXAMPLE)
        raise AuthFileError(what, _("there is no such file"), cure, missing=True) from error
    except OSError as error:
        raise AuthFileError(
            what, error.strerror or str(error), _("Check the permissions of the file and of the folders above it.")
        ) from error
    if len(content) > MAX_BYTES:
        raise AuthFileError(what, _("it is larger than {size} bytes").format(size=MAX_BYTES), _("Keep only the users in it."))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise AuthFileError(what, _("it is not UTF-8 text"), _("Save it as UTF-8.")) from None


def generate_auth_file(path: Path, user_name: str, gid: int | None = None) -> User:
    """Makes the file with one user and a new strong password, which the group `gid` can read (None: whatever group new files here get).

    Mode 0640; folders that are missing get 0750, or what the folder above hands down where that has the setgid bit. Raises
    FileExistsError where the file is there already, and leaves it as it is; AuthFileError when it cannot be made.
    """
    user = User(user_name, Secret(secrets.token_urlsafe(24)))
    entry = {"user_name": user.user_name, "pass": user.password.reveal()}
    text = yaml.safe_dump(entry, default_flow_style=True, default_style="'", sort_keys=False, allow_unicode=True, width=4096)
    try:
        _make_folders(path.parent, gid)
        _place(path, text, gid)
    except FileExistsError:
        raise
    except OSError as error:
        raise AuthFileError(
            _("{where} cannot be made").format(where=path),
            error.strerror or str(error),
            _("Check the permissions of the folders above it, or ask the group's owner to make them."),
        ) from error
    return user


def _place(path: Path, text: str, gid: int | None) -> None:
    """Puts a new file in its place at once and complete. Raises FileExistsError or another OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            _give(file.fileno(), gid)
            os.fchmod(file.fileno(), 0o640)
        link(temporary, path)  # unlike a rename, a link never replaces what is there
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _give(made: int | Path, gid: int | None) -> None:
    """To the group, before that may read it: without the setgid bit above it is the caller's own first group's. Raises OSError."""
    found = os.fstat(made) if isinstance(made, int) else made.stat()
    if gid is not None and found.st_gid != gid:
        os.chown(made, -1, gid)


def _make_folders(folder: Path, gid: int | None) -> None:
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        above = stat.S_IMODE(each.parent.stat().st_mode)
        fresh = each.with_name(f".{secrets.token_hex(8)}")
        fresh.mkdir(0o700)
        try:
            _give(fresh, gid)
            inherited = above & ~stat.S_IRWXO & ~stat.S_ISVTX & ~stat.S_ISUID
            fresh.chmod(inherited if above & stat.S_ISGID else 0o750)
            rename(fresh, each)  # closed for the group, it would be in the way of who makes another server's file now
        except OSError:
            fresh.rmdir()
            if not each.is_dir():  # theirs, who were first
                raise
