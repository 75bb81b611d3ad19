"""A remote model package in the user's cache: put there by --fetch-only, and the only one that --offline takes."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mlwf.address import without_keys
from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.cache import Cache
from mlwf.image.model.progress import Progress
from mlwf.image.model.sources import fetch_archive, is_remote

KIND = "packages"


def kept_package(cache: Cache, source: str, environ: Mapping[str, str]) -> str:
    """Where the package is without a network: what its address gave when it was last fetched. Raises MlwfError when it never was."""
    if not is_remote(source):
        return source
    place = _place(source, environ)
    # What an address gives is the user's own knowledge: a layer of the site's could be older, or of another's rights.
    archive = replace(cache, layers=()).get(KIND, cache.key(source, place))
    if archive is None:
        raise MlwfError(
            _("The model package {source} is not in the cache, and --offline forbids fetching it").format(
                source=f"{without_keys(source)} ({place})" if place else without_keys(source)
            ),
            cure=_("Run the same command with --fetch-only on a node with internet first."),
        )
    return str(archive.absolute())


@contextlib.contextmanager
def keep_package(cache: Cache, source: str, environ: Mapping[str, str], progress: Progress, *, checked: bool) -> Iterator[str]:
    """Where the package is, downloaded where it is remote. It is kept, in the place of an older one, if what is done with it succeeds.

    `checked`: its SHA-256 is known to who will unpack it. Raises WrongUseError or MlwfError.
    """
    if not is_remote(source):
        yield source
        return
    with cache.work() as work:
        archive = work.absolute() / "model.tar.gz"
        fetch_archive(source, archive, environ=environ, progress=progress, checked=checked)
        yield str(archive)
        cache.put(KIND, cache.key(source, _place(source, environ)), archive)


def _place(source: str, environ: Mapping[str, str]) -> str:
    """The store or server that a source without a host is looked up in: the same name elsewhere is another package."""
    place, scheme = "", source.partition(":")[0].lower()
    if scheme == "models":
        place = environ.get("MLFLOW_TRACKING_URI", "")
    elif scheme == "s3":
        from mlwf.transfer.store import endpoint_of

        place = endpoint_of(environ, {})
    return without_keys(place).rstrip("/")
