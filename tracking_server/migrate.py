"""`python -P -m tracking_server.migrate DATABASE`: bring a server's database to the schema of this environment's MLflow.

Nothing else may have it open. A database that is of this schema already is left alone; one with a schema that this MLflow does not know
(a newer one: there is no way back) is refused. Exit status 0 and `{"schema_revision"}` on standard output; 1 with one sentence on standard
error.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing, redirect_stdout
from pathlib import Path


class MigrationError(Exception):
    """The database stays as it is; one sentence without paths."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: python -P -m tracking_server.migrate DATABASE\n")
        return 2
    try:
        revision = migrate(Path(arguments[0]))
    except (MigrationError, sqlite3.Error) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps({"schema_revision": revision}) + "\n")
    return 0


def migrate(database: Path) -> str:
    """The schema that the database has afterwards. Errors: MigrationError, sqlite3.Error."""
    wanted = json.loads((Path(sys.prefix) / "version.json").read_text())["schema_revision"]
    found = revision_of(database)
    if found == wanted:
        return found
    if found not in known_revisions():
        raise MigrationError(f"the database has the schema {found}, which this MLflow does not know: it is newer, and there is no way back")
    from mlflow.db import commands  # type: ignore[import-not-found]  # it is in the box's environment only

    with redirect_stdout(sys.stderr):
        commands.main(["upgrade", f"sqlite:///{database}"], standalone_mode=False)
    found = revision_of(database)
    if found != wanted:
        raise MigrationError(f"MLflow's own migration ended at the schema {found}, and {wanted} was expected")
    return found


def revision_of(database: Path) -> str:
    with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else "none"


def known_revisions() -> set[str]:
    import mlflow.store  # type: ignore[import-not-found]
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(mlflow.store.__file__).parent / "db_migrations"))
    return {each.revision for each in script.walk_revisions()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
