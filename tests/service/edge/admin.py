"""An admin at the command, on a world's state."""

import json
from pathlib import Path
from typing import IO, Any

from click.testing import CliRunner, Result

from backend.cli.main import aihub
from tests.service.edge.world import World


class Admin:
    """Runs the command in this process, on the world's state."""

    def __init__(self, world: World, home: Path) -> None:
        self.world = world
        settings = world.service.settings
        self.file = home / "settings.yml"
        names = ("state_dir", "envs_dir", "allow_unisolated", "port_first", "port_last", "inside_host")
        self.file.write_text("".join(f"{name}: {json.dumps(getattr(settings, name), default=str)}\n" for name in names))

    def run(self, *argv: str, code: int = 0, text: str | IO[bytes] = "") -> Result:
        result = CliRunner().invoke(aihub, ["--settings", str(self.file), *argv], input=text)
        assert result.exit_code == code, f"{result.output}{result.exception!r}"
        return result

    def json(self, *argv: str) -> Any:
        return json.loads(self.run(*argv, "--json").stdout)
