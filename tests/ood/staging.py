"""A session as Open OnDemand stages and submits it, by its documented contract: the `basic` template around the app's own files."""

import os
import pwd
import shutil
from pathlib import Path

from tests.ood.rendering import ROOT, render, template

JOB = """#!/bin/bash
cd {folder} || exit 1
export host port
create_yml () {{
  (
    umask 077
    echo -e "card: $card\\nhost: $host\\nport: $port\\npassword: $password" > "connection.yml"
  )
}}
clean_up () {{
  [[ -e "clean.sh" ]] && source "clean.sh"
  exit ${{1:-0}}
}}
host=$(hostname)
[[ -e "before.sh" ]] && source "before.sh"
"./script.sh" &
SCRIPT_PID=$!
[[ -e "after.sh" ]] && source "after.sh"
create_yml
wait ${{SCRIPT_PID}} || clean_up 1
clean_up
"""


def stage(folder: Path, values: dict[str, str], *, site: Path, owner: "pwd.struct_passwd") -> Path:
    """The session's folder with the rendered files, the user's own; answers the job's script."""
    shutil.copytree(ROOT / "template", folder)
    names = sorted(path.name for path in folder.glob("*.erb"))
    for name, answer in zip(names, render([template(name, values) for name in names], site=site), strict=True):
        assert "result" in answer, answer
        target = folder / name.removesuffix(".erb")
        target.write_text(answer["result"])
        target.chmod((folder / name).stat().st_mode & 0o777)
        (folder / name).unlink()
    (folder / "job.sh").write_text(JOB.format(folder=folder))
    for path in [folder, *folder.iterdir()]:
        os.chown(path, owner.pw_uid, owner.pw_gid)
    return folder / "job.sh"
