"""What a job may use of its node: processors, memory, temporary space."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from mlwf.errors import MlwfError
from mlwf.image.allocation import bounded, megabytes, processors
from mlwf.image.gpu import may_use_gpu
from mlwf.image.tempspace import find_tempspace, sweep_tempspace, temporary_folder

NOWHERE = Path("/nowhere")
GB = 1 << 30


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, 8),  # a login node has 64, and others on it
        ({"SLURM_JOB_ID": "1"}, 64),
        ({"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "16"}, 4),
        ({"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "16"}, 16),
        ({"JOB_ID": "1", "NSLOTS": "12"}, 12),
        ({"PBS_JOBID": "1", "NCPUS": "6"}, 6),
        ({"PBS_JOBID": "1", "NCPUS": "600"}, 64),
        ({"SLURM_CPUS_PER_TASK": "zero", "NSLOTS": "-3", "NCPUS": ""}, 8),
        ({"OMP_NUM_THREADS": "1", "JOB_ID": "1"}, 64),  # a habit of shells, not an allocation
    ],
)
def test_processors_of_the_batch_systems(environ: Mapping[str, str], expected: int) -> None:
    assert processors(environ, cgroups=NOWHERE, own=NOWHERE, affinity=lambda: 64) == expected


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_limits_of_cgroups_in_both_versions(tmp_path: Path) -> None:
    own = write(tmp_path, {"own2": "0::/job/step\n"}) / "own2"
    two = write(
        tmp_path / "two",
        {
            "job/cpu.max": "350000 100000",
            "job/step/cpu.max": "max 100000",
            "job/memory.max": str(3 * GB),
            "job/memory.current": str(1 * GB),
            "job/step/memory.max": "max",
        },
    )
    meminfo = write(tmp_path, {"meminfo": f"MemTotal: 1 kB\nMemAvailable: {64 * GB >> 10} kB\n"}) / "meminfo"
    assert processors({"JOB_ID": "1"}, cgroups=two, own=own, affinity=lambda: 64) == 4
    assert megabytes(cgroups=two, own=own, meminfo=meminfo) == 512
    old = write(tmp_path, {"own1": "4:memory:/slurm/job\n3:cpuacct,cpu:/slurm/job\n0::/\n"}) / "own1"
    one = write(
        tmp_path / "one",
        {
            "cpu/slurm/job/cpu.cfs_quota_us": "200000",
            "cpu/slurm/job/cpu.cfs_period_us": "100000",
            "memory/slurm/job/memory.limit_in_bytes": str(8 * GB),
            "memory/slurm/job/memory.usage_in_bytes": "0",
        },
    )
    assert processors({"JOB_ID": "1"}, cgroups=one, own=old, affinity=lambda: 64) == 2
    assert megabytes(cgroups=one, own=old, meminfo=meminfo) == 2048
    assert megabytes(cgroups=NOWHERE, own=NOWHERE, meminfo=meminfo) == 4096
    assert megabytes(cgroups=NOWHERE, own=NOWHERE, meminfo=NOWHERE) == 256
    assert 1 <= processors(os.environ) <= (os.cpu_count() or 1)
    assert 256 <= megabytes() <= 4096
    assert megabytes(cgroups=NOWHERE, own=NOWHERE, meminfo=meminfo, space=lambda: 3 * GB) == 768, "Grid Engine's h_vmem"


def mounts(folder: Path, kinds: Mapping[str, str], options: str = "rw,relatime") -> Path:
    """A mountinfo in which folders are file systems of their own."""
    lines = ["20 1 8:1 / / rw - ext4 /dev/sda1 rw"]
    lines += [
        f"{number} 20 0:{number} / {folder / name} {options} shared:1 - {kind} server rw"
        for number, (name, kind) in enumerate(kinds.items(), 30)
    ]
    (folder / "mountinfo").write_text("\n".join(lines).replace(f"{folder}/with space", f"{folder}/with\\040space"))
    return folder / "mountinfo"


def folders(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)


def test_the_order_of_the_habits(tmp_path: Path) -> None:
    names = ["apptainer", "singularity", "slurm", "sge", "pbs-local", "tmp", "pbs"]
    folders(tmp_path, *names)
    variables = ["APPTAINER_TMPDIR", "SINGULARITY_TMPDIR", "SLURM_TMPDIR", "SGE_LOCALDIR", "PBS_LOCALDIR", "TMPDIR", "PBS_JOBDIR"]
    environ = dict(zip(variables, (str(tmp_path / name) for name in names), strict=True))
    table = mounts(tmp_path, {})
    for name in names:
        assert find_tempspace(environ, None, 1, mounts=table) == tmp_path / name
        environ.pop(variables[names.index(name)])
    assert find_tempspace({}, None, 1, mounts=table) == Path("/tmp")
    assert find_tempspace({"TMPDIR": str(tmp_path)}, tmp_path / "tmp", 1, mounts=table) == tmp_path / "tmp"


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs"])
def test_no_network_file_system(tmp_path: Path, kind: str) -> None:
    folders(tmp_path, "with space/inner", "local")
    table = mounts(tmp_path, {"with space": kind})
    far = tmp_path / "with space/inner"
    assert find_tempspace({"TMPDIR": str(far)}, None, 1, mounts=table) == Path("/tmp")
    with pytest.raises(MlwfError) as caught:
        find_tempspace({}, far, 1, mounts=table)
    assert f"network file system ({kind})" in str(caught.value)
    # A link does not hide where it leads, and a local mount inside counts as itself.
    (tmp_path / "link").symlink_to(far)
    with pytest.raises(MlwfError, match=kind):
        find_tempspace({}, tmp_path / "link", 1, mounts=table)
    table = mounts(tmp_path, {"with space": kind, "with space/inner": "xfs"})
    assert find_tempspace({}, far, 1, mounts=table) == far


def test_every_fault_is_named(tmp_path: Path) -> None:
    folders(tmp_path, "bound")
    table = mounts(tmp_path, {"bound": "tmpfs"}, options="rw,nosuid,noexec")
    with pytest.raises(MlwfError) as caught:
        find_tempspace({"TMPDIR": str(tmp_path / "none"), "SLURM_TMPDIR": str(tmp_path / "bound")}, None, 1 << 60, mounts=table)
    said = str(caught.value)
    assert f"{tmp_path}/none (TMPDIR): it is not a folder" in said
    assert f"{tmp_path}/bound (SLURM_TMPDIR): programs may not run there (noexec)" in said
    assert "/tmp (the usual place): only" in said
    assert "--tmpdir" in said
    for relative in (Path("here"), Path("none")):
        with pytest.raises(MlwfError, match="it is not a folder"):
            find_tempspace({}, relative, 1, mounts=table)


def test_a_folder_of_ones_own_which_goes(tmp_path: Path) -> None:
    with temporary_folder({"TMPDIR": str(tmp_path)}, None, 1) as folder:
        assert folder.parent == tmp_path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "base").mkdir()
        (folder / "base" / "file").touch()
        (folder / "base").chmod(0o500)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys
from pathlib import Path
from mlwf.image.tempspace import temporary_folder
with temporary_folder({}, Path(sys.argv[1]), 1) as folder:
    (folder / "rootfs").mkdir(0o500)
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_the_next_run_removes_what_a_killed_one_left_in_the_temporary_space(tmp_path: Path) -> None:
    for name in ("mlwf-notes", "else"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lease").write_text("not ours" if name == "else" else "")
    argv = [sys.executable, "-c", KILLED, str(tmp_path)]
    with ExitStack() as stack:
        runs = [stack.enter_context(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)) for _each in (1, 2)]
        killed, living = (Path(run.stdout.readline().strip()) for run in runs if run.stdout)
        runs[0].kill()
        runs[0].wait()
        assert (killed / "rootfs").is_dir()
        sweep_tempspace({}, tmp_path / "else")
        assert killed.exists(), "another place"
        sweep_tempspace({"TMPDIR": str(tmp_path)}, None)
        assert sorted(tmp_path.iterdir()) == sorted([living, tmp_path / "else", tmp_path / "mlwf-notes"])
        runs[1].communicate("")
    assert not living.exists()


def test_programs_keep_to_the_allocation_where_the_user_has_not_said_more() -> None:
    found = bounded({"PATH": "/bin", "GOMAXPROCS": "1"}, 3)
    assert found == {
        "PATH": "/bin",
        "GOMAXPROCS": "1",
        "OMP_NUM_THREADS": "3",
        "UV_CONCURRENT_BUILDS": "3",
        "UV_CONCURRENT_INSTALLS": "3",
    }


def test_a_node_with_gpus_is_not_yet_a_job_with_one(tmp_path: Path) -> None:
    assert not may_use_gpu({}, devices=tmp_path / "none")
    (tmp_path / "nvidiactl").symlink_to(os.devnull)
    assert not may_use_gpu({}, devices=tmp_path), "what every job on such a node can open"
    with socket.socket(socket.AF_UNIX) as refused:
        refused.bind(str(tmp_path / "nvidia0"))  # opened like a device that the job's cgroup keeps from it: an error
        assert not may_use_gpu({}, devices=tmp_path)
    (tmp_path / "nvidia1").symlink_to(os.devnull)
    assert may_use_gpu({}, devices=tmp_path)
    for choice, may in (("0", True), ("GPU-5c1d,1", True), ("", False), ("-1", False), ("NoDevFiles", False), ("-1,0", False)):
        assert may_use_gpu({"CUDA_VISIBLE_DEVICES": choice}, devices=tmp_path) == may
