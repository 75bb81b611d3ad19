"""The node itself: room for temporary files, and what images need."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from mlwf.doctor.findings import Check, Failed, Noted
from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.process import Runner
from mlwf.image.tempspace import find_tempspace
from mlwf.image.tool import find_mksquashfs, find_tool

ROOM = 10 << 30
LITTLE = 1 << 30


class Node:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def checks(self) -> list[Check]:
        return [
            Check("temporary", _("Temporary space"), self._temporary),
            Check("container", _("Apptainer or Singularity"), self._container),
            Check("mksquashfs", "mksquashfs", self._mksquashfs),
            Check("namespaces", _("User namespaces"), self._namespaces),
        ]

    def _temporary(self) -> str:
        folder = find_tempspace(self._environ, None, LITTLE)
        free = shutil.disk_usage(folder).free
        words = _("{folder}: {free:.1f} GB free").format(folder=folder, free=free / 1e9)
        if free < ROOM:
            raise Noted(words + _("; an image with PyTorch takes up to 15 GB while it is built"))
        return words

    def _container(self) -> str:
        tool = find_tool(self._environ)
        return f"{tool.kind} {tool.version} ({tool.path})"

    def _mksquashfs(self) -> str:
        try:
            tool = find_tool(self._environ)
        except MlwfError as error:  # which may bring one of its own
            raise Noted(_("not checked: there is no Apptainer or Singularity")) from error
        squasher = find_mksquashfs(self._environ, tool)
        return f"{squasher.version} ({squasher.path})"

    def _namespaces(self) -> str:
        limit = Path("/proc/sys/user/max_user_namespaces")
        if limit.exists() and limit.read_text().strip() == "0":
            raise Failed(
                _("user namespaces are switched off"),
                cure=_("Ask for a setuid installation of Apptainer, or for user.max_user_namespaces > 0."),
            )
        if os.geteuid() == 0:
            raise Noted(_("you are root: not tried"))
        program = shutil.which("unshare", path=self._environ.get("PATH"))
        if program is None:
            raise Noted(_("there is no unshare to try it with"))
        Runner(self._environ).run([program, "--user", "--map-root-user", "true"], _("a user namespace cannot be made"), timeout=4)
        return _("one was made")
