"""SingularityCE for heavy tests, as a site has it: installed by root, its starter with the setuid bit, or without user privileges at all.

Needs root and what `bin/setup heavy` installs. `bin/singularity-for-tests` puts SingularityCE into /var/cache/aihub/singularity.
"""

import contextlib
import os
import sysconfig

import requests

from tests.support.apptainer import CACHED, ROOT, Ground, checked, ground_with

# Its own files, laid under the machine's for one process and its children: it has the places of its settings, its starter and itself
# built in, and takes the user's home from the list of users. For its --fakeroot the user has more ids than his own.
_ENTER = r"""
for place in /etc /usr/bin /var/lib "$2"; do mount -t overlay overlay -o "lowerdir=$place:$1$place" "$place"; done
mount -t tmpfs tmpfs /mnt
sed "s|^\(nobody:.*\):[^:]*:\([^:]*\)$|\1:$HOME:\2|" /etc/passwd >/mnt/passwd
mount --bind /mnt/passwd /etc/passwd
echo nobody:100000:65536 >/mnt/subid
for list in /etc/subuid /etc/subgid; do mount --bind /mnt/subid "$list"; done
umount --lazy /mnt
shift 2
exec "$@"
"""


def singularity_ground() -> contextlib.AbstractContextManager[Ground]:
    """Makes what is not there yet; the user's tool is called singularity. Raises GroundError."""
    folder = CACHED / "singularity"
    checked([str(ROOT / "bin" / "singularity-for-tests"), str(folder)])
    libraries = f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}"
    entry = ("unshare", "--mount", "sh", "-ec", _ENTER, "sh", str(folder / "root"), libraries)
    return ground_with(folder / "root" / "usr" / "bin", "singularity", entry)


def why_not() -> str:
    """Why SingularityCE cannot be made here; empty where it is there, or can be."""
    if (CACHED / "singularity" / "ready").exists():
        return ""
    mirror = os.environ.get("UBUNTU_MIRROR", "http://archive.ubuntu.com/ubuntu")
    try:
        requests.head(f"{mirror}/dists/noble/InRelease", timeout=20).raise_for_status()
    except requests.RequestException as error:
        return f"Ubuntu's archive, which has SingularityCE, cannot be reached ({type(error).__name__})"
    return ""
