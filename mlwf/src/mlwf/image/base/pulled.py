"""A SIF that only the container tool can fetch (library://, oras://): whole, and not again while its server says that it is the same.

The tool asks the server for the SIF's hash and looks for it by that name in a cache of its own. It is given one for this call alone. With
a cache it compares what came with the hash: without one it takes what an object store answers in place of a part for a part (Apptainer 1.4
and SingularityCE 4.1, from a library). And where our base of a SIF is kept, some bytes stand for that SIF in the tool's cache.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlwf.i18n import _
from mlwf.image.base.docker_reference import registry_cure, tls_cure
from mlwf.image.base.given import check_opens, login_for
from mlwf.image.base.source import BaseSource, file_digest
from mlwf.image.cache import remove_tree
from mlwf.image.kit import Kit
from mlwf.image.process import ProgramError

# What the tools and their servers say, in lower case.
NO_LIBRARY = re.compile(r"no default remote|not a service at endpoint")
# A proxy's, not the server's: Go then has its status text alone after the address.
BY_PROXY = re.compile(r'(?:get|head) "[^"]*": (?:forbidden|proxy authentication required)')
# Go's words for a server that does not speak TLS, and for a certificate that nobody here knows.
PLAIN = re.compile(r"server gave http response to https client|first record does not look like a tls handshake")
UNTRUSTED = re.compile(r"x509: ")
STATUS = re.compile(r"status(?: code)?:? (\d{3})\b|\((\d{3}) [a-z' -]+\)")
NOT_LET_IN = re.compile(r"unauthori[sz]ed|forbidden|(?<!permission )denied")
NOT_THERE = re.compile(r"not found|not exist|(?:manifest|name)_unknown|manifest unknown")
TOO_MANY = re.compile(r"toomanyrequests|too many requests")
NO_ANSWER = re.compile(r"dial tcp|no such host|timeout|deadline exceeded")
BY_STATUS = {"401": NOT_LET_IN, "403": NOT_LET_IN, "404": NOT_THERE, "429": TOO_MANY}
# Names, paths and addresses, which may hold any of these words.
NAMES = re.compile(r"(?!i/o\b)\S*/\S*|lookup \S+")


@dataclass(frozen=True)
class Pulled:
    """A SIF by its SHA-256. `entry`: what the tool's cache calls it, empty where nobody knows; `file`: None where it was not fetched."""

    digest: str
    entry: str
    file: Path | None = None


def pull(kit: Kit, source: BaseSource, folder: Path, known: Pulled | None, *, http: bool) -> Pulled:
    """Fetches into `folder` the SIF that `source` names, unless it is still the `known` one. Raises MlwfError."""
    file, cache = folder / "pulled.sif", folder / "pulled-cache"
    cache.mkdir(0o700)
    if known:
        stand_in = cache / known.entry
        stand_in.parent.mkdir(0o700, parents=True)
        stand_in.write_text(known.digest)
    try:
        kit.tool.pull(kit.runner, source.text, file, cache=cache, http=http, login=login_for(source, kit.runner.environ))
    except ProgramError as error:
        cure = _cure(source, error.output, kit.tool.path.name, kit.runner.environ)
        if known and not cure:
            # No word of the server's that we know: it may be the tool's on the stand-in, if it looks into what its cache has.
            remove_tree(cache)
            file.unlink(missing_ok=True)
            return pull(kit, source, folder, None, http=http)
        error.cure = cure or registry_cure(500)
        raise
    size = file.stat().st_size
    if known and size == len(known.digest) and file.read_text(errors="replace") == known.digest:
        return known
    entry = next((str(each.relative_to(cache)) for each in cache.rglob("*") if each.is_file() and each.stat().st_size == size), "")
    remove_tree(cache)
    check_opens(kit.tool, file)
    return Pulled(file_digest(file), entry, file)


def _cure(source: BaseSource, said: str, tool: str, environ: Mapping[str, str]) -> str:
    """What helps where the server said something that we know; else empty."""
    of_library, said = source.kind == "library", said.lower()
    if of_library and NO_LIBRARY.search(said):
        return _("Name the library with '{tool} remote add' and '{tool} remote use'.").format(tool=tool)
    if PLAIN.search(said) or UNTRUSTED.search(said):
        return tls_cure(trusted=not UNTRUSTED.search(said))
    meant = _meant(said, source.text.lower())
    if meant is NOT_LET_IN:
        return _("Log in with '{tool} remote login' and check the name.").format(tool=tool) if of_library else _login_cure(source, environ)
    if meant is NOT_THERE:
        which = _("Check the name and the tag, and with '{tool} remote list' which library is asked.").format(tool=tool)
        return which if of_library else registry_cure(404)
    if meant is TOO_MANY and not of_library:
        return registry_cure(429)
    return registry_cure(None) if meant is NO_ANSWER else ""


def _login_cure(source: BaseSource, environ: Mapping[str, str]) -> str:
    from mlwf.image.base.registry import login_cure  # speaks over a network, as what failed did

    return login_cure(urlsplit(source.text).netloc, environ)


def _meant(said: str, source: str) -> re.Pattern[str] | None:
    """Which of the words above."""
    if BY_PROXY.search(said):
        return NO_ANSWER
    name = rf"(?<![\w.-]){re.escape(source.partition('://')[2])}(?![\w-])"
    words = NAMES.sub(" ", re.sub(name, " ", said))
    status = STATUS.search(words)
    if status:  # the rest is what the server's page says, or a person's words
        return BY_STATUS.get(status[1] or status[2])
    return next((each for each in (NOT_LET_IN, NOT_THERE, TOO_MANY, NO_ANSWER) if each.search(words)), None)
