"""What a model's requirements ask for: whoever made the model wrote it, so it may ask for anything, and gets what is allowed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlwf.address import split_url
from mlwf.errors import MlwfError
from mlwf.i18n import _

MAX_BYTES = 4 << 20
MAX_LINES = 20_000
MAX_DEPTH = 8
MAX_INCLUDES = 1000
# Of one requirement without its hashes; the patterns below take time that grows with its square.
MAX_LINE = 2000
NAMED = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[A-Za-z0-9, ._-]*\])?\s*(?P<rest>.*)")
RELEASE = re.compile(r"\(?\s*(?:(?:===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+\s*(?:,\s*)?)*\)?\s*")
MARKER = re.compile(r"[\s\w.'\"()<>=!~,*+-]*")
OPTION = re.compile(r"(?P<name>--?[A-Za-z][A-Za-z-]*)(?:\s*[=\s]\s*(?P<value>.*))?")
# uv takes a name that ends like an archive for the file of that name.
ARCHIVE = re.compile(r".*\.(?:whl|egg|zip|tgz|tbz2?|txz|tlz|tar(?:\.[a-z0-9]+)?)", re.IGNORECASE)
INCLUDES = {"-r": "r", "--requirement": "r", "-c": "c", "--constraint": "c"}
INDEXES = {
    "-i": "--index-url",
    "--index-url": "--index-url",
    "--pypi-url": "--index-url",
    "--extra-index-url": "--extra-index-url",
    "-f": "--find-links",
    "--find-links": "--find-links",
}
# Options that change nothing here: what they allow is decided by the one who builds, not by the model.
IDLE = {"--no-index": False, "--pre": True, "--prefer-binary": True, "--require-hashes": True}


@dataclass(frozen=True)
class Policy:
    """What a model may ask for besides packages of the index that the machine is set to: nothing, unless it is allowed by name.

    `indexes`: indexes and pages of links (`--extra-index-url` …); `urls`: packages at https addresses (`NAME @ https://…`).
    """

    indexes: bool = False
    urls: bool = False


STRICT = Policy()


@dataclass(frozen=True)
class Requirements:
    """`packages` and `constraints`: lines that name packages; `indexes`: whole option lines, such as `--extra-index-url https://…`."""

    packages: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """As the lines of one requirements file, without the constraints."""
        return (*self.indexes, *self.packages)


class RefusedRequirementError(MlwfError):
    """The model asks for something that it does not get."""

    def __init__(self, line: str, why: str, cure: str) -> None:
        super().__init__(_("The model's requirement {line} is refused").format(line=shown(line)), why, cure)


def read_requirements(folder: Path, name: str, policy: Policy = STRICT) -> Requirements:
    """Reads `folder`/`name` and what it includes of the package itself. Raises RefusedRequirementError or MlwfError."""
    return _gather(_Files(folder).lines(folder / name, "r"), policy)


def check_requirements(folder: Path, lines: list[str], policy: Policy = STRICT) -> Requirements:
    """The same for what a list in a YAML file holds, as if it were a file in `folder`: MLflow makes one of it there."""
    return _gather(_Files(folder).listed(lines), policy)


def _gather(lines: Iterator[tuple[str, str]], policy: Policy) -> Requirements:
    found: dict[str, list[str]] = {"r": [], "c": [], "i": []}
    for number, (given, kind) in enumerate(lines):
        if number > MAX_LINES:
            raise MlwfError(_("The model has more than {count} requirements").format(count=MAX_LINES), cure=_log_again())
        line = given.replace("\t", " ")
        _check_printable(line)
        if line.startswith("-"):
            index = _index(line, policy)
            if index:
                found["i"].append(index)
        else:
            found[kind].append(_package(line, policy))
    return Requirements(*(tuple(dict.fromkeys(found[kind])) for kind in "rci"))


class _Files:
    """Requirements files of a package. Each is read once as requirements and once as constraints: said twice is said once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: set[tuple[Path, str]] = set()
        self._includes = 0

    def lines(self, file: Path, kind: str, above: tuple[Path, ...] = ()) -> Iterator[tuple[str, str]]:
        """Lines of the file and of those that it includes; each with r for a requirement and c for a constraint."""
        if file in above or len(above) > MAX_DEPTH:
            raise MlwfError(_("The model's requirements include each other in a circle"), cure=_log_again())
        if (file, kind) in self._read:
            return
        self._read.add((file, kind))
        yield from self._with_included(_text(file), file.parent, kind, (*above, file))

    def listed(self, lines: list[str]) -> Iterator[tuple[str, str]]:
        """The same for lines that stand in no file, but as if one in the package's own folder had them."""
        for line in lines:
            # A line of YAML may hold what ends a line for pip and uv, and be two there.
            _check_printable(line.replace("\t", " "))
        yield from self._with_included("\n".join(lines), self._folder, "r", ())

    def _with_included(self, text: str, beside: Path, kind: str, above: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
        for line in _logical_lines(text):
            option = OPTION.fullmatch(line)
            if option and option["name"] in INCLUDES:
                self._count()
                inner = _included(self._folder, beside, line, option["value"] or "")
                yield from self.lines(inner, "c" if kind == "c" else INCLUDES[option["name"]], above)
            else:
                yield line, kind

    def _count(self) -> None:
        self._includes += 1
        if self._includes > MAX_INCLUDES:
            what = _("The model's requirements include files more than {count} times").format(count=MAX_INCLUDES)
            raise MlwfError(what, cure=_log_again())


def _included(folder: Path, beside: Path, line: str, value: str) -> Path:
    target = value.strip().strip("'\"")
    path = beside / target
    # Resolved, so that '..' counts as what it is; links there are none in an unpacked package.
    inside = bool(target) and "://" not in target and path.resolve().is_relative_to(folder.resolve())
    if not inside or not path.is_file():
        why = _("that file is not in the package") if inside else _("it leads out of the package")
        raise RefusedRequirementError(line, why, _log_again())
    return path.resolve()


def _text(file: Path) -> str:
    try:
        with file.open("rb") as content:
            data = content.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
        why = _("it is larger than {size} MB").format(size=MAX_BYTES >> 20) if len(data) > MAX_BYTES else ""
    except OSError as error:
        text, why = "", error.strerror or str(error)
    except UnicodeDecodeError:
        text, why = "", _("it is not UTF-8 text")
    if why:
        raise MlwfError(_("The model's {file} cannot be read").format(file=file.name), why, _log_again())
    return text


def _logical_lines(text: str) -> Iterator[str]:
    """Lines without comments, continued ones joined, whether or not the last one ends with a newline."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        plain = re.sub(r"(^|\s)#.*$", "", line).strip()
        if plain:
            yield plain


def _package(line: str, policy: Policy) -> str:
    """The line, when it names a package and nothing else. Hashes beside it are left out: the lock has its own."""
    line = re.sub(r"\s--hash[=\s]\S+", "", line).strip()
    check_length(line)
    match = NAMED.fullmatch(line)
    rest = match["rest"] if match else ""
    if match and rest.startswith("@"):
        return _addressed(line, rest[1:].strip(), policy)
    release, _semicolon, marker = rest.partition(";")
    is_file = bool(match and ARCHIVE.fullmatch(match["name"])) or "/" in line
    if match and not is_file and RELEASE.fullmatch(release) and MARKER.fullmatch(marker):
        return line
    if is_file or re.match(r"(?:[a-z+]+:|\.|~)", line):
        raise RefusedRequirementError(line, _("it is a path or an address, not the name of a package"), _log_again())
    raise RefusedRequirementError(line, _("it is not understood"), _log_again())


def _addressed(line: str, address: str, policy: Policy) -> str:
    url, _space, marker = address.partition(" ")
    parts = split_url(url)
    if not parts.hostname or parts.scheme != "https":
        raise RefusedRequirementError(line, _("only what comes from an https address can be pinned by its hash"), _log_again())
    if parts.username or parts.password:
        raise _password(line)
    check_variables(line)
    if not policy.urls:
        raise RefusedRequirementError(
            line, _("it is fetched from an address of the model's choice"), _("If you trust it, allow it with --allow-urls.")
        )
    if not MARKER.fullmatch(marker.strip().removeprefix(";")) or re.search(r"[\s'\"\\]", url):
        raise RefusedRequirementError(line, _("it is not understood"), _log_again())
    return line


def _index(line: str, policy: Policy) -> str:
    """The option as uv and pip both read it; empty when it changes nothing. Raises RefusedRequirementError."""
    check_length(line)
    match = OPTION.fullmatch(line)
    name = match["name"] if match else line
    value = (match["value"] or "").strip() if match else ""
    if IDLE.get(name):
        return ""
    if name in {"-e", "--editable"}:
        raise RefusedRequirementError(line, _("it is a source folder, which an image does not have"), _log_again())
    if name not in INDEXES:
        raise RefusedRequirementError(line, _("a model may not set this option"), _log_again())
    check_index(value, line, policy)
    return f"{INDEXES[name]} {value}"


def check_index(address: str, line: str, policy: Policy) -> None:
    """Whether packages may come from there. `line`: where it stands. Raises RefusedRequirementError."""
    parts = split_url(address)
    if not parts.hostname or parts.scheme not in {"https", "http"} or re.search(r"[\s'\"\\]", address) or not address.isprintable():
        raise RefusedRequirementError(line, _("it is not a web address"), _log_again())
    if parts.username or parts.password:
        raise _password(line)
    check_variables(line)
    if not policy.indexes:
        raise RefusedRequirementError(
            line, _("packages would come from an index of the model's choice"), _("If you trust it, allow it with --allow-indexes.")
        )


def _check_printable(line: str) -> None:
    if not line.isprintable():
        raise RefusedRequirementError(line, _("it is not understood"), _log_again())


def check_length(line: str) -> None:
    """Raises RefusedRequirementError for a line that no requirement needs."""
    if len(line) > MAX_LINE:
        raise RefusedRequirementError(line, _("it is longer than {count} characters").format(count=MAX_LINE), _log_again())


def check_variables(line: str) -> None:
    """Both uv and pip put variables into an address, which would tell them to its host. Raises RefusedRequirementError."""
    if "$" in line:
        raise RefusedRequirementError(line, _("its address would take up variables of your environment"), _log_again())


def _password(line: str) -> RefusedRequirementError:
    return RefusedRequirementError(
        line,
        _("it holds a user name or a password"),
        _("Log the model without it, and give the password in UV_INDEX_…_PASSWORD or ~/.netrc."),
    )


def plain(name: str) -> str:
    """A package's name as indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def shown(line: str) -> str:
    """A line as it may be shown: short, without control characters, and without what may be a password in it."""
    return ascii(re.sub(r"//[^/\s]*@", "//…@", line)[:160])


def without_passwords(text: str) -> str:
    """The addresses in `text` without user names and passwords."""
    return re.sub(r"://[^/\s]*@", "://", text)


def _log_again() -> str:
    return _("Log the model with plain requirements (NAME==VERSION).")
