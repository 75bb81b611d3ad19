"""Images made by the command, as users make them."""

import hashlib
from pathlib import Path

from tests.support.apptainer import Ground

# Where nobody listens: whoever uses the network all the same fails.
NO_NETWORK = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
# Options of each tool's own build: with little time for packing, where that can be chosen; by a recipe that runs programs, as a user.
QUICKLY = {"apptainer": ("--mksquashfs-args", "-comp zstd -Xcompression-level 1"), "singularity": ()}
AS_A_USER = {"apptainer": (), "singularity": ("--fakeroot",)}


def create(
    ground: Ground, model: Path | str, *options: str | Path, base: str = "", status: int = 0, seconds: float = 500.0, **more: str
) -> str:
    """Runs the command; stdout, or stderr where a failure is expected."""
    given = ["--model-pkg-url", model, "--base-container-url", base or f"docker-archive:{ground.base}", *options]
    done = ground.run(ground.create(*given), seconds=seconds, **more)
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def imports_six(ground: Ground, made: dict[str, object]) -> bool:
    """Whether the image that was made has the tiny model's package, and the base's own variable."""
    done = ground.run([ground.tool, "exec", str(made["image"]), "sh", "-c", "python -c 'import six' && echo $OF_THE_BASE"])
    return done.stdout == "kept\n"
