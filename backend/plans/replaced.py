"""The copy of a database that an operation replaces: what it is good for, and when.

Until the operation touches the server's own database, the copy is a second one of it, and can go. From then on the copy alone is known
to be whole, until the registry says that the server has another version; then it is the one from before. No server is started beside a
copy (``recover`` comes before each start), so nobody has written to a database while its copy was there, and putting it back loses
nothing.
"""

from __future__ import annotations

from backend.plans.world import World
from backend.registry.models import Server


def recover(world: World, server: Server) -> None:
    """The server has its whole database, and no copy is left that could ever take its place. A box that runs on half of one is stopped.

    Errors: ``snapshot_damaged``, ``disk_full``, ``box_failed_to_stop``: then the copy stays, and nothing may be started.
    """
    copies, directory = world.replaced, world.boxes.directory(server.id)
    if not copies.exists(server.id):
        return
    if copies.about(server.id)["operation_id"] == server.upgraded_by:
        world.previous.adopt(server.id, copies)
        return
    if copies.is_touched(server.id):
        world.runtime.stop(server_id=server.id, directory=directory, timeout=world.settings.stop_timeout)
        copies.put_back(server.id, directory)
    copies.remove(server.id)


def remove_copies(world: World, server_id: str) -> None:
    """No copy of the server's database is left, whatever it was kept for."""
    for copies in world.copies.values():
        copies.remove(server_id)
