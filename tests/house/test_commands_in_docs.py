"""Commands that the documentation shows exist, with the options that it shows."""

import functools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.tree import ROOT

PROGRAMS = Path(sys.executable).parent
TOOLS = ("mlwf", "mlwf_export_model", "mlwf_create_image", "aihub")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "samples").rglob("README.md"))]
OPTION = re.compile(r"--[a-z][a-z0-9-]+")
# What stands behind it is another program's.
ENDS = ("|", "&&", ";", ">", "--")


def commands(page: Path) -> Iterator[tuple[str, ...]]:
    """The words of every command of ours in the page's code blocks."""
    for block in re.findall(r"^ *```(?:sh|bash)?\n(.*?)^ *```", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = plain_words(line)
            for place, word in enumerate(words):
                if word in TOOLS:
                    rest = words[place + 1 :]
                    yield (word, *rest[: next((n for n, each in enumerate(rest) if each in ENDS), len(rest))])
                    break


def plain_words(line: str) -> list[str]:
    line = re.sub(r"[\[\]()…]", " ", line.replace("$(", " "))
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # an apostrophe of a sentence
        return []


@functools.cache
def help_of(*command: str) -> str:
    done = subprocess.run(
        [PROGRAMS / command[0], *command[1:], "--help"], capture_output=True, text=True, check=False, env={"LC_ALL": "C.UTF-8"}
    )
    return done.stdout if done.returncode == 0 else ""


def help_for(words: tuple[str, ...]) -> str:
    """The help of the command with as many of the words as name subcommands."""
    found, name = help_of(words[0]), words[:1]
    for word in words[1:]:
        if not re.fullmatch(r"[a-z][a-z-]+", word) or not re.search(rf"^  {word}\b", found, flags=re.MULTILINE):
            break
        name = (*name, word)
        found = help_of(*name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_options_that_a_page_shows_exist(page: Path) -> None:
    unknown = []
    for words in commands(page):
        known = help_for(words)
        unknown += [f"{words[0]} … {option}" for word in words for option in OPTION.findall(word) if option not in known]
    assert unknown == []


def test_commands_are_found() -> None:
    found = [words for page in PAGES for words in commands(page)]
    assert {words[0] for words in found} == set(TOOLS)
    assert len(found) > 20


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "walkthrough").glob("*.en.md")), ids=lambda path: path.name)
def test_both_languages_show_the_same_commands(page: Path) -> None:
    def blocks(path: Path) -> list[str]:
        return re.findall(r"^```.*?^```", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)

    other = page.with_name(page.name.replace(".en.", ".ja."))
    assert blocks(page) == blocks(other)
    assert len(re.findall(r"^## ", page.read_text("utf-8"), flags=re.MULTILINE)) == len(
        re.findall(r"^## ", other.read_text("utf-8"), flags=re.MULTILINE)
    )
