"""A real Slurm of one node, with a munge of its own: started by hand on free ports in a folder of its own, ended by process id."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from demo.ports import free_ports
from tests.support.box import until


@dataclass
class Slurm:
    """`environment`: what its commands need."""

    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")))
    _processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "SLURM_CONF": str(self.home / "slurm.conf"), "LANG": "C.UTF-8"}

    def run(self, *command: str, user: "pwd.struct_passwd | None" = None, check: bool = True) -> str:
        """What one of its commands prints, run as the user."""
        as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"] if user else []
        environment = self.environment | ({"HOME": str(self.home / "user"), "USER": user.pw_name} if user else {})
        done = subprocess.run([*as_user, *command], env=environment, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}\n{self.log}"
        return done.stdout

    def submit(self, script: Path, user: "pwd.struct_passwd") -> str:
        """The number of the new job."""
        return self.run("sbatch", "--parsable", f"--output={script.parent}/output.log", str(script), user=user).strip()

    def state(self, job: str) -> str:
        """`RUNNING`, `COMPLETED` …; empty for one that Slurm has forgotten."""
        told = self.run("scontrol", "show", "job", job, "--oneliner", check=False)
        return next((word.partition("=")[2] for word in told.split() if word.startswith("JobState=")), "")

    @property
    def log(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.home.glob("*.log")))

    def start(self) -> None:
        self.home.chmod(0o755)
        self._start_munge()
        for name in ("state", "spool"):
            (self.home / name).mkdir(mode=0o755)
        (self.home / "slurm.conf").write_text(self._configuration())
        self._spawn("slurmctld", "-D", "-i")
        self._spawn("slurmd", "-D", "-N", "one")
        until(lambda: "idle" in self.run("sinfo", "-h", "-o", "%t", check=False), what="the node of Slurm")

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self._processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def _start_munge(self) -> None:
        owner = pwd.getpwnam("munge")
        folder = self.home / "munge"
        folder.mkdir(mode=0o755)
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o400)
        for path in (folder, folder / "key"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{name}={folder / file}" for name, file in files.items()]
        as_munge = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        self._spawn(*as_munge, "munged", "--foreground", *options)
        until((folder / "socket").exists, what="munge's socket")

    def _spawn(self, *command: str) -> None:
        with (self.home / f"{len(self._processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._processes.append(process)

    def _configuration(self) -> str:
        controller, daemon = free_ports(2)
        host = socket.gethostname()
        return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={self.home}/munge/socket
CredType=cred/munge
StateSaveLocation={self.home}/state
SlurmdSpoolDir={self.home}/spool
SlurmctldPidFile={self.home}/slurmctld.pid
SlurmdPidFile={self.home}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
KillWait=30
SchedulerParameters=sched_interval=1
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=one Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm() -> Iterator[Slurm]:
    """A Slurm that takes jobs."""
    made = Slurm()
    try:
        made.start()
        yield made
    finally:
        made.stop()
