"""Every text that people read exists in Japanese, with the same parameters."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import backend
from backend import i18n
from backend.adapters import s3_errors
from backend.api import inputs
from backend.domain import OperationKind, OperationState
from backend.errors import FAILURES, ServiceError
from backend.i18n import Told, catalogue, fill, stored, translate
from backend.messages import OPERATIONS, TITLES, describe, describe_stored, operation_message
from backend.notices import WARNINGS
from backend.plans.catalogue import reason_of
from backend.plans.labels import LABELS
from backend.runtimes import failures
from backend.wishes import policy

ROOM = Path(backend.__file__).parent
REASONS = {"full_disk_is_ours": 0, "not_s3": 1, "expect": 1, "_failed": 2, "_ended": 2}
"""Functions that are given, at that place, the reason that another text tells."""
PARTS: dict[type[ast.expr], tuple[str, ...]] = {
    ast.BoolOp: ("values",),
    ast.JoinedStr: ("values",),
    ast.IfExp: ("body", "orelse"),
    ast.BinOp: ("left", "right"),
    ast.Subscript: ("value",),
    ast.List: ("elts",),
}
NAMES = re.compile(r"\{(\w+(?:!r)?)\}")


def _written(folder: str, calls: set[str], keyword: str | None) -> set[str]:
    """Constant texts given to these calls in the files that match: positional, or by that keyword."""
    found: set[str] = set()
    for file in ROOM.glob(folder):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in calls:
                values = [k.value for k in node.keywords if k.arg == keyword] if keyword else node.args
                choices = [each for v in values for each in (v.values if isinstance(v, ast.BoolOp) else [v])]
                found |= {v.value for v in choices if isinstance(v, ast.Constant) and isinstance(v.value, str)}
    return found


def _marked() -> set[str]:
    """What the command says: the first argument of each ``_``, which must stand there as it is."""
    found: set[str] = set()
    for file in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
                assert isinstance(node.args[0], ast.Constant), f"{file}:{node.lineno}: a text must stand there as it is"
                found.add(str(node.args[0].value))
    return found


def _reasons() -> set[str]:
    """All words that stand as they are in what is told inside of another text: by keyword, by place, or in a variable that is given so.
    Half a sentence is found too, and is in no catalogue: one with ``{names}`` must be ``Told``.
    """
    found: set[str] = set()
    for file in ROOM.rglob("*.py"):
        tree = ast.parse(file.read_text())
        assigned = _assigned(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (name := getattr(node.func, "id", getattr(node.func, "attr", ""))) not in {"_", "run"}:
                given = [k.value for k in node.keywords if k.arg == "why" or (name, k.arg) == ("Observation", "detail")]
                given += node.args[REASONS[name] :][:1] if name in REASONS else []
                found |= {text for each in given for text in _literals(each, assigned) if re.search("[a-z]", text)}
    return found


def _assigned(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """Name to all that a module's variables of that name may be."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            several = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            for name, value in zip(target.elts, node.value.elts, strict=True) if several else [(target, node.value)]:
                if isinstance(name, ast.Name) and value is not None:
                    found.setdefault(name.id, []).append(value)
    return found


def _literals(node: ast.expr, assigned: dict[str, list[ast.expr]]) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    parts = [part for field in PARTS.get(type(node), ()) for part in _several(getattr(node, field))]
    if isinstance(node, ast.Name):
        parts = assigned.get(node.id, [])
        assigned = {name: values for name, values in assigned.items() if name != node.id}
    for part in parts:
        yield from _literals(part, assigned)


def _several(part: ast.expr | list[ast.expr]) -> list[ast.expr]:
    return part if isinstance(part, list) else [part]


def texts() -> set[str]:
    found = {row.detail for row in FAILURES.values()} | {row.cure for row in FAILURES.values()}
    found |= {row.detail for row in WARNINGS.values()} | {row.cure for row in WARNINGS.values()}
    found |= {text for three in OPERATIONS.values() for text in three} | set(OPERATIONS) | set(TITLES.values()) | set(LABELS.values())
    found |= (
        {*inputs._MESSAGES.values(), *inputs._PATTERNS.values(), inputs.OTHER} | {policy.ADMINS} | {why for *_, why in s3_errors._SILENCES}
    )
    found |= {"none", failures.LATE} | {word for _sign, word in failures._SIGNS}
    found |= _reasons() | _written("**/*.py", {"Told"}, None) | _written("api/app.py", {"translate"}, None) | _marked()
    return found | _written("adapters/s3.py", {"_do"}, None)


@pytest.mark.parametrize("text", sorted(texts()))
def test_each_text_is_in_japanese(text: str) -> None:
    japanese = catalogue("ja").get(text)
    assert japanese, f"no Japanese for {text!r}"
    assert sorted(NAMES.findall(japanese)) == sorted(NAMES.findall(text))


def test_the_search_for_texts_finds_them() -> None:
    assert {"list", "upload in parts", "its address is not valid", "this request has no body", "it is not an object"} <= texts()
    assert {"putting the database back", "it is nested too deeply", "a model cannot be registered", "it ended"} <= _reasons()
    assert {"its process {pid} does not end", "it ended with status {status}", "its health answer is not understood"} <= texts()


def test_half_a_sentence_is_found_too() -> None:
    (given,) = ast.parse('f"its {name} is gone" if name else (lines or [_LATE])[-1]').body
    assert isinstance(given, ast.Expr)
    assert list(_literals(given.value, {"_LATE": [ast.Constant("late")]})) == ["its ", " is gone", "late"]


def test_the_catalogue_holds_nothing_that_is_used_no_longer() -> None:
    written: set[str] = set()
    for file in ROOM.rglob("*.py"):
        tree = ast.walk(ast.parse(file.read_text()))
        written |= {node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert sorted(set(catalogue("ja")) - written) == []


def test_every_kind_and_state_has_a_message() -> None:
    assert {kind.value for kind in OperationKind} == set(OPERATIONS)
    for kind in OperationKind:
        said = {operation_message(kind, state, language) for state in OperationState for language in i18n.LANGUAGES}
        assert len(said) == 6
    assert operation_message("create", "succeeded", "en") == "Service created"


def test_every_status_has_a_title() -> None:
    assert {row.status for row in FAILURES.values()} <= set(TITLES)


def test_parameters_are_filled_and_translated() -> None:
    told = describe("storage_forbidden", {"access_key_id": "AK", "action": "write", "bucket": "b"}, "ja")
    assert told["detail"] == "キー AK は、バケット b で「書き込み」を許可されていません"
    assert fill("{a} and {b}", "en", {"a": 1}) == "1 and {b}"
    assert fill("{a}", "en", {"a": "{b}"}) == "{b}"
    in_the_group_users = {"user": "alice", "group": "users"}
    assert describe("not_a_member", in_the_group_users, "ja")["detail"] == "alice はグループ users のメンバーではありません"


def test_a_reason_with_names_is_told_in_the_readers_language() -> None:
    error = ServiceError("box_failed_to_stop", why=Told("its process {pid} does not end", pid=7))
    assert str(error) == "box_failed_to_stop: The tracking server did not stop: its process 7 does not end"
    kept = json.loads(json.dumps(reason_of(error)))
    for params in (error.params, kept["params"]):
        assert describe("box_failed_to_stop", params, "en")["detail"] == "The tracking server did not stop: its process 7 does not end"
        assert describe("box_failed_to_stop", params, "ja")["detail"].endswith("プロセス 7 が終わりません")
    odd = ServiceError("box_failed_to_stop", why="{pid} of the daemon's own }")
    assert describe(odd.code, odd.params, "ja")["detail"].endswith("{pid} of the daemon's own }")
    assert stored(Told("{a}", a=Told("none"))) == {"template": "{a}", "params": {"a": {"template": "none", "params": {}}}}


def test_a_full_disk_is_told_in_one_language() -> None:
    for step in LABELS.values():
        told = describe("disk_full", {"why": step}, "ja")["detail"]
        assert not re.search("[a-z]", told.replace("MLflow", "")), told


def test_what_another_version_stored_is_shown_as_it_is() -> None:
    assert describe("of_the_future", {}, "ja") == {"code": "of_the_future", "detail": "of_the_future", "cure": ""}
    assert describe_stored({"code": "box_ill", "params": None, "log": "last\nlines"}, "en") == {
        "code": "box_ill",
        "detail": "The tracking server runs but does not answer as it should: {why}",
        "cure": "Stop and start it; if it goes on, tell the admins.",
        "log": "last\nlines",
    }


def test_an_unknown_language_is_english() -> None:
    assert translate("Service created", "fr") == "Service created"
    assert catalogue("../../x") == {}
