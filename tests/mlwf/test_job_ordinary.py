"""`mlwf job` as an ordinary user, to whom not everything is open."""

import json
import os
import shutil
import subprocess

from tests.mlwf.fake_service import FakeService
from tests.support.ordinary import USER, write_program

REQUEST = {"task": "server", "group_name": "gaa50000", "env_name": "wine", "at_end": "stop", "hours": "2"}
REQUEST |= {"cloud_storage_bucket_name": "wine-models", "profile": "wine"}


def test_a_basic_auth_file_in_a_folder_that_is_closed_to_the_caller_is_told_with_its_cure(service: FakeService) -> None:
    """Another member made it under umask 077, for a server of that name that was deleted since."""
    service.folder.chmod(0o755)
    service.socket.chmod(0o666)
    closed = service.folder / "gaa50000"
    closed.mkdir(mode=0o700)
    ground = service.folder / "ground"
    ground.mkdir()
    (ground / "keys").write_text("[wine]\naws_access_key_id=AKIAEXAMPLE\naws_secret_access_key=s3cr3t\n")
    (ground / "request.json").write_text(json.dumps(REQUEST))
    for path in (ground, *ground.iterdir()):
        shutil.chown(path, USER.pw_uid, USER.pw_gid)
    user = ["setpriv", f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups"]
    argv = [*user, write_program(service.folder / "mlwf", "mlwf.cli.main"), "job", "request.json", "--progress", "progress.json"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(ground), "LC_ALL": "C.UTF-8", "MLWF_SERVICE": service.address}
    environ["AWS_SHARED_CREDENTIALS_FILE"] = str(ground / "keys")
    done = subprocess.run(argv, cwd=ground, env=environ, capture_output=True, text=True, check=False, timeout=60)
    told = json.loads((ground / "progress.json").read_text())
    assert (done.returncode, "gaa50000/wine" in service.servers) == (1, True), done.stderr
    assert told["error"]["detail"] == f"{closed}/aihub/wine/yml/basic_auth.yml cannot be read: Permission denied"
    assert told["error"]["cure"] == "Check the permissions of the file and of the folders above it."
