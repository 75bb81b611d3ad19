"""A real Grid Engine of one node, started by hand on free ports in a folder of its own, ended by process id with all of its jobs."""

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from demo.ports import free_ports
from tests.support.box import until

# Debian's: the programs behind its wrappers, and what a new cell is made of.
PROGRAMS = Path("/usr/lib/gridengine")
SHARED = Path("/usr/share/gridengine")
# Between a warning (-notify, s_rt) and SIGKILL.
NOTIFY_SECONDS = 20
_EXIT = re.compile(r"^exit_status +(\d+)", re.MULTILINE)


@dataclass
class GridEngine:
    """`environment`: what its commands need."""

    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="sge-", dir="/tmp")))
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    _processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        ports = dict(zip(("SGE_QMASTER_PORT", "SGE_EXECD_PORT"), map(str, self.ports), strict=True))
        return {"PATH": os.environ["PATH"], "SGE_ROOT": str(self.home / "root"), "SGE_CELL": "test", "LANG": "C.UTF-8", **ports}

    @property
    def temporary(self) -> Path:
        """In which each job gets a folder, its TMPDIR."""
        return self.home / "tmp"

    def run(self, *command: str | Path, user: "pwd.struct_passwd | None" = None, check: bool = True, text: str = "") -> str:
        """What one of its commands prints, run as the user. `text`: its stdin."""
        as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"] if user else []
        done = subprocess.run([*as_user, *command], env=self.environment, cwd="/", input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}\n{self.log}"
        return done.stdout

    def submit(self, script: str, *options: str | Path, user: "pwd.struct_passwd") -> str:
        """The number of the new job."""
        return self.run("qsub", "-terse", *options, user=user, text=script).strip()

    def goes_on(self, job: str) -> bool:
        """Whether it waits or runs."""
        return any(line.split()[:1] == [job] for line in self.run("qstat", "-u", "*").splitlines())

    def exit_status(self, job: str, *, seconds: float = 120) -> int:
        """That of a job when it is over, which is waited for: of its script, or 128 and the signal that ended it."""
        said = until(lambda: _EXIT.search(self.run("qacct", "-j", job, check=False)), seconds=seconds, what=f"the end of job {job}")
        return int(said[1])

    def unpacks(self, job: str) -> bool:
        """Whether mlwf_create_image is unpacking a base in the job's folder."""
        return bool(list(self.temporary.glob(f"{job}.1.main/mlwf-*/base/usr")))

    @property
    def log(self) -> str:
        found = [*self.home.glob("*.log"), *self.home.glob("spool/**/messages")]
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(found))

    def start(self) -> None:
        self.home.chmod(0o755)
        for folder in ("root/test/common", "spool/db", "spool/qmaster", "spool/execd", "tmp"):
            (self.home / folder).mkdir(parents=True)
        self.temporary.chmod(0o1777)
        self._make_cell()
        self._spawn("sge_qmaster")
        until(lambda: self.run("qconf", "-sh", check=False), what="the master of Grid Engine")
        self.run("qconf", "-as", socket.gethostname())
        scheduler = _changed(self.run("qconf", "-ssconf"), schedule_interval="0:0:1", flush_submit_sec="1", flush_finish_sec="1")
        self._configure("-Msconf", _changed(scheduler, job_load_adjustments="NONE"))
        self._configure("-Ap", (SHARED / "util/resources/pe/smp").read_text())
        self._configure("-Aq", _changed(self.run("qconf", "-sq"), **self._queue()))
        self._spawn("sge_execd")
        until(lambda: " lx-" in self.run("qstat", "-f"), what="the node of Grid Engine")

    def stop(self) -> None:
        # The node's daemon first, and by this: its jobs would outlive one that is told to end by a signal.
        self.run("qconf", "-kej", socket.gethostname(), check=False)
        for process in reversed(self._processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20 if process is not self._processes[0] else 0)
            process.kill()  # the master takes ten seconds to say good-bye, and nothing of it is kept
            process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def _make_cell(self) -> None:
        """What the package's own script makes a cell of, in our folder and with root as the only manager."""
        common, host = self.home / "root/test/common", socket.gethostname()
        (self.home / "root/util").symlink_to(SHARED / "util")
        (self.home / "root/utilbin").symlink_to("/var/lib/gridengine/utilbin")
        places = {"spooling_params": self.home / "spool/db", "qmaster_spool_dir": self.home / "spool/qmaster", "admin_user": "none"}
        (common / "bootstrap").write_text(_changed((SHARED / "default-bootstrap").read_text(), **places))
        (common / "act_qmaster").write_text(f"{host}\n")
        # 127.0.0.1 is called localhost, which Grid Engine would take for another host.
        (common / "host_aliases").write_text(f"{host} localhost\n")
        own = {"execd_spool_dir": self.home / "spool/execd", "min_uid": 0, "min_gid": 0, "load_report_time": "00:00:01"}
        own["reporting_params"] = "accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00"
        (self.home / "configuration").write_text(_changed((SHARED / "default-configuration").read_text(), **own))
        self.run(PROGRAMS / "spoolinit", "berkeleydb", "libspoolb", self.home / "spool/db", "init")
        for kind, source in {"complexes": "centry", "usersets": "usersets"}.items():
            self.run(PROGRAMS / "spooldefaults", kind, SHARED / "util/resources" / source)
        self.run(PROGRAMS / "spooldefaults", "configuration", self.home / "configuration")
        self.run(PROGRAMS / "spooldefaults", "managers", "root")

    def _queue(self) -> dict[str, object]:
        """What of the usual queue is changed. Its shell (/bin/sh, whatever a script's first line says) is not."""
        return {
            "qname": "main",
            "hostlist": socket.gethostname(),
            "slots": 4,
            "pe_list": "smp",
            "tmpdir": self.temporary,
            "load_thresholds": "NONE",
            "notify": f"00:00:{NOTIFY_SECONDS}",
        }

    def _configure(self, option: str, text: str) -> None:
        (self.home / "change").write_text(text)
        self.run("qconf", option, self.home / "change")

    def _spawn(self, name: str) -> None:
        with (self.home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", PROGRAMS / name], env={**self.environment, "SGE_ND": "1"}, cwd="/",
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._processes.append(process)


def _changed(text: str, **values: object) -> str:
    """A configuration (a name and its value on each line) with other values."""
    lines = [line for line in text.splitlines() if line.split()[:1] and line.split()[0] not in values]
    return "\n".join([*lines, *(f"{name} {value}" for name, value in values.items())]) + "\n"


@contextlib.contextmanager
def grid_engine() -> Iterator[GridEngine]:
    """A Grid Engine that takes jobs."""
    made = GridEngine()
    try:
        made.start()
        yield made
    finally:
        made.stop()
