"""The pages are found from README, their links lead somewhere, and what several of them name is one thing."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

from ood_app.settings import BASE_CONTAINER_URL
from tests.house.tree import ROOT, files

PAGES = [ROOT / path for path in files("*.md")]
INDEX = ROOT / "docs" / "README.md"
# Quoted by the page of failures, but in no text of ours: the kernel's words, and a sentence around the name of a tool.
NOT_WHOLE = {
    "Permission denied",
    "There is no Apptainer or Singularity",
    "このマシンで Apptainer または Singularity が見つかりません",
}


def text_of(page: Path) -> str:
    """Without code blocks, in which brackets are no links and # begins no heading."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The files of this tree that the page links to, each with the anchor or an empty text."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if not re.match(r"[a-z]+:", target):
            name, _, anchor = target.partition("#")
            yield (page.parent / name).resolve() if name else page, anchor


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index_and_the_index_in_the_readme() -> None:
    assert INDEX in {file for file, _ in links(ROOT / "README.md")}
    listed = {file for file, _ in links(INDEX)}
    assert [str(page) for page in PAGES if page.is_relative_to(INDEX.parent) and page != INDEX and page not in listed] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page: Path) -> None:
    wrong = [str(file) for file, anchor in links(page) if not file.exists() or (anchor and anchor not in anchors(file))]
    assert wrong == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name.endswith(".ja.md") and page.with_suffix("").with_suffix(".md").exists()]
)
def test_a_translation_has_the_rows_and_commands_of_its_page(page: Path) -> None:
    def rows(path: Path) -> list[list[str]]:
        """What is written alike in both languages."""
        found = re.findall(r"^\|.*\|$", path.read_text("utf-8"), flags=re.MULTILINE)
        return [sorted(code for code in re.findall(r"`[^`]+`|\*\*[^*]+\*\*", row) if code.isascii()) for row in found]

    other = page.with_suffix("").with_suffix(".md")
    assert rows(page) == rows(other)
    assert {page, other} <= {file for each in (page, other) for file, _anchor in links(each)}, "each leads to the other"


def texts_for_people() -> Iterator[str]:
    """What our programs may say, in both languages."""
    for path in files("backend/*.py", "mlwf/src/*.py", "tracking_server/*.py"):
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    for path in files("*.po"):
        with (ROOT / path).open("rb") as file:
            for message in read_po(file):
                yield from (str(message.id), str(message.string))


@pytest.mark.parametrize("name", ["when-something-fails.md", "when-something-fails.ja.md"])
def test_what_the_page_of_failures_quotes_is_what_is_said(name: str) -> None:
    said = "\0".join(texts_for_people())
    quoted = re.findall(r"(?<!\*)\*([^*|]+)\*(?!\*)", (ROOT / "docs/howto" / name).read_text("utf-8"))
    assert len(quoted) > 10
    patterns = {text: "[^\0]*".join(re.escape(part.strip(" ,")) for part in text.split("…")) for text in quoted}
    assert [text for text, pattern in patterns.items() if text not in NOT_WHOLE and not re.search(pattern, said)] == []


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_walk_through_names_the_notebooks_sections_as_the_notebook_does(language: str) -> None:
    notebook = json.loads((ROOT / "samples/llm_finetune/Cerebras-GPT-590M.ipynb").read_text("utf-8"))
    source = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    sections = re.findall(r"^## \d\. (.+)\uff08(.+)\uff09$", source, flags=re.MULTILINE)
    text = (ROOT / f"docs/walkthrough/llm.{language}.md").read_text("utf-8")
    named = re.findall(r"^\d\. \*([^*]+)\*:", text, flags=re.MULTILINE)
    assert named == [section[language == "ja"] for section in sections]
    assert "4. Record it" in text


@pytest.mark.parametrize(
    ("other", "places"),
    [
        ("エクスポート", ("*.po", "*.erb", "*.ja.md")),  # 抽出: what mlwf_export_model does
        ("要求", ("ood_app/*.po",)),  # リクエスト: as in the id that the console shows
    ],
)
def test_one_thing_has_one_name_in_japanese(other: str, places: tuple[str, ...]) -> None:
    found = files(*places)
    assert found
    assert [str(path) for path in found if other in (ROOT / path).read_text("utf-8")] == []


def test_anchors_are_as_github_makes_them() -> None:
    assert {"8-back-up", "6-callers-on-other-hosts-tls-munge-tokens"} <= anchors(ROOT / "docs/install/service.md")
    assert "mlwf_export_model" in anchors(ROOT / "docs/reference/mlwf.md")


def test_one_base_image_for_the_gpu_is_recommended_everywhere() -> None:
    named: dict[str, set[str]] = {}
    for path in files("*.md", "*.erb", "*.example", "*.yml", "*.py"):
        for image in re.findall(r"[\w./:-]*\bcuda:[\w.-]+", (ROOT / path).read_text("utf-8")):
            named.setdefault(image, set()).add(str(path))
    assert set(named) == {BASE_CONTAINER_URL}
    places = {"form.yml.erb", "deploy/site.yml.example", "ood_app/README.md", "docs/howto/create-image.md", "docs/walkthrough/llm.en.md"}
    assert places <= named[BASE_CONTAINER_URL]


@pytest.mark.parametrize(("room", "top"), [("backend", "backend"), ("ood_app", "ood_app"), ("mlwf", "mlwf/src/mlwf")])
def test_the_map_of_a_room_names_each_of_its_modules_once(room: str, top: str) -> None:
    _, _, after = (ROOT / room / "README.md").read_text("utf-8").partition("\n## What lies where\n")
    named: list[str] = []
    for row in re.findall(r"^\|.*\|$", after, flags=re.MULTILINE):
        folder = re.match(r"\| `([\w/]+/)`", row)
        named += [(folder[1] if folder else "") + name for name in re.findall(r"`(\w+\.py)`", row)]
    modules = [file.relative_to(top) for file in files(f"{top}/*.py") if file.name != "__init__.py" and "migrations" not in file.parts]
    assert sorted(named) == sorted(map(str, modules))


def test_every_module_that_a_page_names_with_its_folder_is_there() -> None:
    modules = [f"/{path}" for path in files("*.py")]
    named = {(str(page.relative_to(ROOT)), name) for page in PAGES for name in re.findall(r"`([\w/]+/\w+\.py)`", page.read_text("utf-8"))}
    assert {name for _page, name in named}, "the search finds some"
    assert [(page, name) for page, name in sorted(named) if not any(module.endswith(f"/{name}") for module in modules)] == []
