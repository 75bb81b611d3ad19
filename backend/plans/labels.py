"""The steps' names, and beside each what people read while it runs (translated where it is shown)."""

from __future__ import annotations

from typing import Final

LABELS: Final[dict[str, str]] = {
    "check_storage": "Check the bucket and the key",
    "check_name": "Check that the name is free",
    "write_box": "Write the server's settings",
    "start_box": "Start the server",
    "wait_ready": "Wait until it answers",
    "stop_box": "Stop the server",
    "snapshot": "Keep a copy of the database",
    "unpack_snapshot": "Put the database back",
    "remove_box": "Remove the server",
    "remove_copy": "Remove the kept copy",
    "copy_for_trial": "Copy the database for a trial",
    "take_port": "Take a port for the trial",
    "migrate_copy": "Migrate the copy",
    "try_version": "Try the new version on the copy",
    "migrate": "Migrate the database",
    "prove_version": "Check that the version reads the database",
    "take_version": "Change to the version",
    "wait_users": "Wait until the new users are in force",
}
