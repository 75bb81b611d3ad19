"""The documentation's pictures of a run's page and of an image's answer are not older than what they show."""

import re

import pytest

from tests.e2e.pictures import IMAGES, PICTURES, drawn_from, source
from tests.e2e.transcript import KEPT, Transcript, shape
from tests.support.box import ROOT


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_of_what_is_there_now(name: str) -> None:
    assert source(name).read_text().strip() == drawn_from(name), f"draw it anew: python -m tests.e2e.pictures {name}"
    assert (IMAGES / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("page", ["README.md", "docs/walkthrough/ml.en.md", "docs/walkthrough/ml.ja.md"])
def test_they_are_shown_where_people_begin(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for name in PICTURES:
        assert re.search(rf"!\[[^\]]+\]\((?:\.\./|docs/)images/{name}\.png\)", text), f"{page} shows no {name}"


def test_the_answer_is_a_run_from_the_package_to_the_prediction() -> None:
    lines = KEPT.read_text("utf-8").splitlines()
    assert [line.split()[1] for line in lines if line.startswith("$ ")] == ["mlwf_create_image", "singularity", "curl"]
    assert lines[-1].startswith('{"predictions": [')
    assert not re.search(r"/tmp/|/root|/var/", "\n".join(lines)), "folders of the machine where it ran"


def test_a_later_run_may_differ_in_numbers_alone() -> None:
    transcript = Transcript({"/tmp/home/": ""})
    command = ["mlwf_create_image", "--model-pkg-url", f"s3://{'b' * 40}/model.tar.gz", "--base-container-url", f"docker://{'c' * 40}"]
    transcript.add(command, "Base image …\nBase image: 1.5 s\n/tmp/home/MLWFCreateImage_20260101000000\n")
    text = transcript.text
    assert [len(line) < 110 for line in text.splitlines()] == [True] * 4
    assert text.splitlines()[2:] == ["Base image: 1.5 s", "MLWFCreateImage_20260101000000"]
    assert shape(text) == shape(text.replace("1.5", "0.007").replace("2026", "2027"))
    assert shape(text) != shape(text.replace("Base image", "Image"))
