"""The documentation's pictures show the page as it is."""

from __future__ import annotations

from tests.console.screenshots import IMAGES, PICTURES, SOURCE, drawn_from


def test_the_pictures_are_not_older_than_the_page() -> None:
    assert SOURCE.read_text().strip() == drawn_from(), "draw them anew: python -m tests.console.screenshots"


def test_every_picture_is_there() -> None:
    for name in PICTURES:
        assert (IMAGES / f"console-{name}.png").read_bytes().startswith(b"\x89PNG")
