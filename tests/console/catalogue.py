"""Every text of the console that has to be in the catalogues: from its Python, its templates and its scripts."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment

CONSOLE = Path(__file__).parents[2] / "ood_app"
CALL = re.compile(r"(?<![\w.])t\(")
LITERAL = re.compile(r't\(("(?:[^"\\]|\\.)*")')


def msgids() -> list[str]:
    """In the order in which they are found, each once."""
    return list(dict.fromkeys([*_python(), *_templates(), *_scripts()]))


def _python() -> Iterator[str]:
    for path in sorted(CONSOLE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
                assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno}: a text must stand there as it is"
                yield str(node.args[0].value)


def _templates() -> Iterator[str]:
    environment = Environment(extensions=["jinja2.ext.i18n"], autoescape=True)
    for path in sorted(CONSOLE.glob("templates/*.html")):
        for _line, _function, message in environment.extract_translations(path.read_text("utf-8")):  # type: ignore[attr-defined]
            yield str(message)


def _scripts() -> Iterator[str]:
    for path in sorted(CONSOLE.glob("static/js/*.js")):
        text = path.read_text("utf-8").replace("export function t(", "")
        for call in CALL.finditer(text):
            literal = LITERAL.match(text, call.start())
            assert literal, f"{path}: a text must stand in t(…) as it is: {text[call.start() : call.start() + 60]}"
            yield json.loads(literal[1])
