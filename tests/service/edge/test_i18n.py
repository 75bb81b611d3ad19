"""Every text that people read exists in Japanese, with the same parameters."""

import ast
import re
from pathlib import Path

import pytest

import backend
from backend import i18n, policy, s3_errors
from backend.api import inputs
from backend.domain import OperationKind, OperationState
from backend.errors import FAILURES
from backend.i18n import catalogue, fill, translate
from backend.messages import OPERATIONS, TITLES, describe, describe_stored, operation_message
from backend.notices import WARNINGS
from backend.plans.labels import LABELS

ROOM = Path(backend.__file__).parent
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


def texts() -> set[str]:
    found = {row.detail for row in FAILURES.values()} | {row.cure for row in FAILURES.values()}
    found |= {row.detail for row in WARNINGS.values()} | {row.cure for row in WARNINGS.values()}
    found |= {text for three in OPERATIONS.values() for text in three} | set(OPERATIONS) | set(TITLES.values()) | set(LABELS.values())
    found |= set(inputs.all_messages()) | {policy.ADMINS} | {why for *_, why in s3_errors._SILENCES}
    found |= _written("**/*.py", {"ServiceError"}, "why") | _written("api/app.py", {"translate"}, None) | _marked()
    return found | _written("s3.py", {"_do", "not_s3"}, None) | _written("s3_errors.py", {"not_s3"}, None)


@pytest.mark.parametrize("text", sorted(texts()))
def test_each_text_is_in_japanese(text: str) -> None:
    japanese = catalogue("ja").get(text)
    assert japanese, f"no Japanese for {text!r}"
    assert sorted(NAMES.findall(japanese)) == sorted(NAMES.findall(text))


def test_the_search_for_texts_finds_them() -> None:
    assert {"list", "upload in parts", "its address is not valid", "this request has no body", "it is not an object"} <= texts()


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
