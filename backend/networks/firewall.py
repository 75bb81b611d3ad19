"""What the host's firewall has in force of ours: the only place that speaks to nft."""

from __future__ import annotations

import os
import subprocess
from typing import Final

from backend.i18n import _
from backend.networks import layout

_LONGEST: Final = 60.0
"""Seconds that one call may take."""
_BY_BRIDGE: Final = 'table bridge aihub_try { chain forward { type filter hook forward priority 0; meta ibrname "aihub" drop; }; }'


class FirewallError(Exception):
    """nft is not there or does not answer; the text says so, and the cure."""


def nft(*arguments: str, rules: str = "") -> subprocess.CompletedProcess[str]:
    """One call. Error: ``FirewallError``."""
    try:
        return subprocess.run(["nft", *arguments], input=rules, capture_output=True, text=True, timeout=_LONGEST, check=False)
    except FileNotFoundError:
        raise FirewallError(_("there is no nft; install nftables (Debian: apt-get install nftables)")) from None
    except subprocess.TimeoutExpired:
        raise FirewallError(_("nft gave no answer for a minute; see what holds it (`ps`, `dmesg`), then try again")) from None


def is_in_force(table: str) -> bool:
    """Whether there is that table. Root alone can see it. Error: ``FirewallError``."""
    return nft("list", "table", *table.split()).returncode == 0


def tells_bridges() -> bool:
    """Whether this kernel's rules can ask by which bridge a frame goes (``nft_meta_bridge``: distributions' kernels have it). Root alone
    can see it; to others it is so. Error: ``FirewallError``.
    """
    return os.geteuid() != 0 or nft("--check", "-f", "-", rules=_BY_BRIDGE).returncode == 0


def earlier_answers(install: str) -> list[layout.Answer]:
    """What names of the allow-list led to before, by the rules in force. Error: ``FirewallError``."""
    done = nft("--json", "list", "set", *layout.table_name(install).split(), "answers")
    return layout.earlier_answers(done.stdout) if done.returncode == 0 else []
