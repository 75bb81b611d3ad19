"""A centre for the rendered jobs: a real service, a real scheduler, and an ordinary user with keys and a group area."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mlwf.answers import Server
from mlwf.client import ServiceError

from tests.ood.rendering import SERVER
from tests.ood.staging import stage
from tests.service.edge.live import Live
from tests.support.box import until
from tests.support.ordinary import GROUP, USER, write_program
from tests.support.s3 import S3Store

LOGIN = {"user_name": "alice", "pass": "the-password-of-the-job-test"}
LEASE_SECONDS = 6


@dataclass(frozen=True)
class Centre:
    """`home`: the user's; `mlwf`: the program. `hand_in` gives a session's script, with the form's values, to the scheduler and answers the
    job's number; `goes_on`: whether that job waits or runs.
    """

    live: Live
    home: Path
    mlwf: Path
    bucket: str
    site: Path
    hand_in: Callable[[Path, dict[str, str]], str]
    goes_on: Callable[[str], bool]

    def submit(self, name: str, values: dict[str, str], **environ: str) -> tuple[str, Path]:
        """The job's number and folder. `environ`: what the site exports besides."""
        folder = self.home / name
        site = yaml.safe_load(self.site.read_text())
        site["batch_connect"]["environment"] |= environ
        own = self.site.with_name(f"{name}.yml")
        own.write_text(yaml.safe_dump(site))
        return self.hand_in(stage(folder, values, site=own, owner=USER), values), folder

    def session(self, **changes: str) -> dict[str, str]:
        """What the form of a session says."""
        return {**SERVER, "group_name": GROUP, "cloud_storage_bucket_name": self.bucket, "profile": "wine", **changes}

    def server(self) -> Server:
        with self.live.client() as client:
            return client.server(GROUP, "wine")

    def status(self) -> str:
        try:
            return self.server().status
        except ServiceError as error:
            return error.code

    def told(self, folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / "progress.json").read_text()) if (folder / "progress.json").exists() else {}
        return found

    def wait_for_end(self, folder: Path) -> None:
        """Until the session's job has said that it ended well: the last that it does, when its server may be stopped already."""
        until(lambda: self.told(folder)["state"] != "running", what="the job's last word")
        assert self.told(folder)["state"] == "succeeded"

    def wait_for_card(self, job: str, folder: Path) -> None:
        def there() -> bool:
            assert self.goes_on(job), (folder / "output.log").read_text()
            return (folder / "connection.yml").exists()

        until(there, seconds=120, what="the session's card")


def centre_of(
    live: Live,
    store: S3Store,
    home: Path,
    site_folder: Path,
    *,
    hand_in: Callable[[Path, dict[str, str]], str],
    goes_on: Callable[[str], bool],
) -> Centre:
    """Makes the user's `home`, in a folder that everybody may enter, and what lies there."""
    home.mkdir(mode=0o700)
    keys = home / "keys"
    keys.write_text(f"[wine]\naws_access_key_id={store.owner.access_key}\naws_secret_access_key={store.owner.secret_key}\n")
    auth = Path(live.settings["group_area"]) / GROUP / "aihub" / "wine" / "yml" / "basic_auth.yml"
    auth.parent.mkdir(parents=True)
    auth.write_text(json.dumps(LOGIN))
    auth.chmod(0o600)
    for path in (home, keys, auth):
        os.chown(path, USER.pw_uid, USER.pw_gid)
    environ = {"MLWF_SERVICE": f"unix://{live.socket}", "AWS_SHARED_CREDENTIALS_FILE": str(keys), "MLWF_LEASE_SECONDS": LEASE_SECONDS}
    mlwf = write_program(home.with_name(f"{home.name}-mlwf"), "mlwf.cli.main")
    offer = {"mlwf": str(mlwf), "environment": environ}
    site = site_folder / "site.yml"
    site.write_text(yaml.safe_dump({"service": {"endpoint_url": live.settings["endpoint_url"]}, "batch_connect": offer}))
    return Centre(live, home, mlwf, store.make_bucket(), site, hand_in, goes_on)
