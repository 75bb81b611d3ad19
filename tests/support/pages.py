"""Commands of a documentation page, and what a human does between them."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.box import ROOT

WALKTHROUGH = ROOT / "docs" / "walkthrough"
FILLED = {
    "Description": "A model of the walk-through, made to be tried, whose answers are of no other use.",
    "Keywords": ["walk-through"],
    "Email": "alice@example.org",
    "License": "Apache-2.0",
}


def blocks(page: Path, section: int) -> list[str]:
    """The shell commands of `## SECTION.`, block by block."""
    _, _, after = page.read_text("utf-8").partition(f"\n## {section}. ")
    found = re.findall(r"^```sh\n(.*?)^```", after.partition("\n## ")[0], flags=re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no commands in section {section}"
    return found


def changed(commands: str, names: Mapping[str, str]) -> str:
    """The commands with the page's examples of names replaced: each must be there."""
    for shown, real in names.items():
        assert shown in commands, shown
        commands = commands.replace(shown, real)
    return commands


def settle(home: Path, access_key: str, secret_key: str) -> None:
    """A user's home has the tools where the pages install them, and the key of a bucket."""
    tools, keys = home / "venv" / "mlwf" / "bin" / "activate", home / ".aws" / "credentials"
    for file in (tools, keys):
        file.parent.mkdir(parents=True)
    tools.write_text(f"PATH={Path(sys.executable).parent}:$PATH\n")
    keys.write_text(f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n")


def shell(home: Path, commands: str, **environ: str) -> str:
    """What the commands print in a new shell of the user, in which nothing else is set."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8", **environ}
    argv = ["bash", "-ec", f". ~/venv/mlwf/bin/activate\n{commands}"]
    done = subprocess.run(argv, cwd=home, env=env, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def fill(package: Path) -> None:
    """What is REQUIRED in info.yaml."""
    text = (package / "info.yaml").read_text("utf-8")
    text = re.sub(r"^Description:.*$", f"Description: {FILLED['Description']}", text, flags=re.MULTILINE)
    text = re.sub(r"^Keywords: \[\]$", f"Keywords: {json.dumps(FILLED['Keywords'])}", text, flags=re.MULTILINE)
    text = re.sub(r"^    Email: ''$", f"    Email: {FILLED['Email']}", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=^License:\n)((?:  #.*\n)*)  Name: ''$", rf"\1  Name: {FILLED['License']}", text, flags=re.MULTILINE)
    (package / "info.yaml").write_text(text, "utf-8")
