"""The one module that chooses the adapters. Everything else is given what it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backend import versions
from backend.adapters.nss import Nss
from backend.api.identity import Identity, MungeCredentials, PeerCredentials, TokenCredentials
from backend.api.service import Service
from backend.domain import Caller
from backend.errors import ServiceError
from backend.files.boxfiles import BoxDirectories
from backend.files.snapshots import DatabaseCopies, PlainKeeper
from backend.i18n import _
from backend.munge import Unmunge
from backend.ports import BoxFiles, Directory, Keeper, ObjectStore, Runtime
from backend.reconcile.reconciler import Reconciler
from backend.registry.database import Registry
from backend.registry.keyring import Keyring
from backend.settings import Settings, SettingsError, environment
from backend.wishes.access import Access
from backend.wishes.api_tokens import ApiTokens
from backend.wishes.changes import Requests
from backend.wishes.kick import Kick
from backend.wishes.leases import Leases
from backend.wishes.passwords import Hasher

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

    from backend.runtimes.containers import ContainerRuntime
    from backend.runtimes.docker import Engine


def open_registry(settings: Settings) -> Registry:
    """The registry of the settings."""
    return Registry(settings.database_url)


def make_directory(settings: Settings) -> Directory:
    """The site's users and groups."""
    return Nss(admin_group=settings.admin_group)


def find_user(settings: Settings, user: str) -> Caller:
    """The site's user of that name, by whom the command was told. Errors: ``no_such_user``, ``directory_failed``."""
    directory = make_directory(settings)
    uid = directory.uid_of(user=user)
    if uid is None:
        raise ServiceError("no_such_user", user=user)
    return directory.caller(uid=uid)


def make_boxes(settings: Settings) -> BoxFiles:
    """The servers' directories."""
    return BoxDirectories(settings.servers_dir, make_keeper(settings))


def make_copies(settings: Settings) -> dict[str, DatabaseCopies]:
    """The copies of databases, by the names of their folders."""
    return {folder.name: DatabaseCopies(folder, make_keeper(settings)) for folder in settings.copies_dirs}


def make_keeper(settings: Settings) -> Keeper:
    """What reads and makes what belongs to a box's own uids."""
    if settings.runtime != "docker":
        return PlainKeeper()
    from backend.runtimes.keeper import ContainerKeeper

    return ContainerKeeper(engine=make_engine(settings), image=settings.image)


def make_engine(settings: Settings) -> Engine:
    """The containers' daemon, which is asked nothing here."""
    from backend.networks.layout import install_id
    from backend.runtimes.docker import Engine

    return Engine(address=settings.docker_host, install=install_id(settings.state_dir), timeout=settings.docker_timeout)


def make_store(settings: Settings) -> ObjectStore:
    """What tries the object store."""
    from backend.adapters.s3 import S3  # boto3 is slow to import

    return S3(ca_file=settings.s3_ca_file)


def make_runtime(settings: Settings) -> Runtime:
    """What runs the servers. ``SettingsError`` for one that keeps groups apart by nothing, unless that was accepted."""
    if settings.runtime == "docker":
        return _make_containers(settings)
    from backend.runtimes.process import ProcessRuntime

    runtime = ProcessRuntime(servers_dir=settings.servers_dir, envs_dir=settings.envs_dir, environment=environment())
    if not runtime.isolates and not settings.allow_unisolated:
        told = _(
            "runtime: {runtime} runs every group's servers under one account, so that one group could read another's keys; choose another "
            "runtime, or set allow_unisolated: true on a host of one group, for development or a demo",
            runtime=runtime.name,
        )
        raise SettingsError([told])
    return runtime


def make_identity(part: str, settings: Settings, registry: Registry) -> Identity:
    """How callers of a listener prove who they are; ``part`` is the listener's name."""
    if part == "munge":
        return MungeCredentials(url=settings.munge_url or "", unmunge=Unmunge(settings.munge_socket))
    return TokenCredentials(ApiTokens(registry)) if part == "token" else PeerCredentials()


def _make_containers(settings: Settings) -> ContainerRuntime:
    """The daemon is asked nothing here."""
    from backend.networks import layout
    from backend.networks.layout import install_id
    from backend.runtimes.containers import ContainerRuntime, Site

    install = install_id(settings.state_dir)
    site = Site(
        install=install,
        image=settings.image,
        listen_address=settings.listen_address,
        networks=layout.networks(settings, install),
        resolvers=layout.resolvers(settings),
        ca_file=settings.s3_ca_file,
    )
    return ContainerRuntime(engine=make_engine(settings), site=site)


def make_service(settings: Settings) -> Service:
    """The parts that answer requests. The runtime is only asked what it is."""
    runtime = make_runtime(settings)
    directory, registry, keyring = make_directory(settings), open_registry(settings), Keyring(settings.keys_file)
    requests = Requests(
        registry=registry,
        directory=directory,
        settings=settings,
        keyring=keyring,
        kick=Kick(settings.kick_socket),
        hasher=Hasher(places=max(1, settings.threads // 2)),
    )
    return Service(
        settings=settings,
        registry=registry,
        directory=directory,
        keyring=keyring,
        requests=requests,
        access=Access(registry=registry, directory=directory, settings=settings, keyring=keyring, kick=Kick(settings.kick_socket)),
        leases=Leases(registry=registry, directory=directory, settings=settings, kick=Kick(settings.kick_socket)),
        runtime_name=runtime.name,
        runtime_isolates=runtime.isolates,
    )


def make_collectors(settings: Settings) -> CollectorRegistry:
    """The service's numbers."""
    from backend.api.numbers import collectors

    return collectors(settings, open_registry(settings))


def make_reconciler(settings: Settings) -> Reconciler:
    """The reconciler with everything that it reaches."""
    from backend.adapters.trial import HttpTrial

    containers = _make_containers(settings) if settings.runtime == "docker" else None
    return Reconciler(
        registry=open_registry(settings),
        runtime=containers or make_runtime(settings),
        boxes=make_boxes(settings),
        store=make_store(settings),
        directory=make_directory(settings),
        keyring=Keyring(settings.keys_file),
        trial=HttpTrial(),
        settings=settings,
        kick=Kick(settings.kick_socket),
        keeper=make_keeper(settings),
        chore=_chore(settings, containers) if containers else None,
    )


def _chore(settings: Settings, runtime: ContainerRuntime) -> Callable[[], None]:
    """Tell the processes that do not reach the daemon which images there are, and tidy up after one-off containers that were cut short."""

    def chore() -> None:
        versions.publish(settings, runtime.versions())
        runtime.tidy()

    return chore
