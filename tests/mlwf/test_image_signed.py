"""The image that was made, signed by who made it."""

import json
import shutil
from pathlib import Path

import pytest

from tests.mlwf.creating import create, imports_six, sha256
from tests.mlwf.models import Models, answer_of
from tests.support.apptainer import Ground

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]


def test_an_image_is_signed_and_verified_and_the_cache_keeps_none_that_was_changed(ground: Ground, models: Models) -> None:
    made = answer_of(create(ground, models.tiny(), "--no-test", "--json"))
    image, unsigned = Path(str(made["image"])), sha256(Path(str(made["image"])))
    key = ["--name", "A", "--email", "a@example.org", "--comment", "", "--password", "", "--push=false"]
    for command in (["key", "newpair", *key], ["sign", image], ["verify", "--local", image]):
        done = ground.run([ground.tool, *command])
        assert done.returncode == 0, done.stderr
    assert sha256(image) != unsigned
    assert imports_six(ground, made)
    assert json.loads(ground.run([ground.tool, "inspect", "--json", image]).stdout)["data"]["attributes"]["labels"]["mlwf.lock-sha256"]

    again = answer_of(create(ground, models.tiny(), "--no-test", "--json"))
    assert sha256(Path(str(again["image"]))) == unsigned, "nobody else is given what one has changed"

    damaged = image.with_name("damaged.simg")
    shutil.copyfile(image, damaged)
    with damaged.open("r+b") as file:
        file.seek(damaged.stat().st_size // 2)  # the signature is at the end
        file.write(b"x")
    ground.give(damaged)
    assert ground.run([ground.tool, "verify", "--local", damaged]).returncode != 0
