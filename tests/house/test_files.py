"""Shell files are clean, nothing secret-looking is committed, and the README's commands exist."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.house.tree import ROOT, files

SHEBANG = re.compile(rb"#!\s*(/usr)?/bin/(env )?(ba|da)?sh\b")
# Real-looking keys, never the words of documentation. Each is a vendor's own published form.
SECRETS = {
    "private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}"),
    "AWS access key": re.compile(rb"\b(?:AKIA|ASIA)(?!IOSFODNN7EXAMPLE)[A-Z0-9]{16}\b"),
    "GitHub token": re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36}\b"),
    "bcrypt hash": re.compile(rb"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}"),
    "password in an address": re.compile(rb"\b(?:https?|postgresql|s3)://[^\s/:@{}$<>\"']+:[^\s/@{}$<>\"']{6,}@(?!.*example)"),
}


FILES = [ROOT / path for path in files()]


def shell_files() -> list[Path]:
    """Scripts as they stand; a template is no script yet, and is looked at where it is rendered (tests/ood)."""
    return [path for path in FILES if path.suffix != ".erb" and SHEBANG.match(path.read_bytes()[:40])]


def test_shellcheck_has_nothing_to_say() -> None:
    files = shell_files()
    assert ROOT / "bin/setup" in files
    run = subprocess.run(["shellcheck", *files], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_programs_can_be_run() -> None:
    assert [str(path) for path in shell_files() if not path.stat().st_mode & 0o100] == []


def test_nothing_that_looks_like_a_secret_is_in_the_tree() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {what}"
        for path in FILES
        if path.stat().st_size < 2_000_000
        for what, pattern in SECRETS.items()
        if pattern.search(path.read_bytes())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("private key", b"-----BEGIN " + b"PRIVATE KEY-----\n" + b"A" * 64),
        ("AWS access key", b"id = AKIA" + b"Q" * 16),
        ("password in an address", b"postgresql://alice:" + b"correcthorse@db.site/x"),
    ],
)
def test_the_search_finds_what_it_is_for(what: str, text: bytes) -> None:
    assert SECRETS[what].search(text)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/howto/demo.md"])
def test_the_documents_commands_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = (ROOT / document).read_text()
    named = set(re.findall(r"(?:^|`)\s*make ([a-z-]+)", text, re.MULTILINE))
    assert named, "no make command in it"
    assert named <= targets
    assert [name for name in re.findall(r"(?:^|`)\s*(bin/[a-z]+)", text, re.MULTILINE) if not (ROOT / name).exists()] == []


def test_make_alone_lists_every_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    listed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert targets == set(re.findall(r"make ([a-z-]+)", listed))


def test_the_headings_of_the_benchmarks_page_are_what_make_bench_runs() -> None:
    page = (ROOT / "docs" / "explanation" / "benchmarks.md").read_text()
    quoted = set(re.findall(r"^##.*`python -m (benchmarks\.[a-z]+)", page, re.MULTILINE))
    assert "benchmarks.box" in quoted
    recipe = (ROOT / "Makefile").read_text().split("\nbench:", 1)[1].split("\n\n", 1)[0]
    assert quoted <= set(re.findall(r"python -m (benchmarks\.[a-z]+)", recipe))
