"""What a model is asked with in its proof: examples as MLflow 2.14.3 writes them, whose server has answered these requests."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlwf.image.model.example import Example, find_example, request_of
from mlwf.image.model.package import read_package
from mlwf.image.proof import Verdict, prove

from tests.image.conftest import MLMODEL

FRAME = '{"columns": ["a", "b"], "data": [[1.0, 0.0]]}'
ARRAY = '{"inputs": [[1.0, 0.0]]}'
CHAT = '{"messages": [{"role": "user", "content": "hi"}]}'
PARAMS = '{"inputs": %s, "params": {"k": 5}}'
OLD_MLMODEL = MLMODEL.replace("  serving_input_path: serving_input_example.json\n", "")
MakeFolder = Callable[..., Path]


@pytest.mark.parametrize(
    ("kind", "params", "text", "request_text"),
    [
        ("dataframe", False, FRAME, f'{{"dataframe_split": {FRAME}}}'),
        ("dataframe", False, '{"data": [[1.0]]}', '{"dataframe_split": {"data": [[1.0]]}}'),
        ("dataframe", True, PARAMS % FRAME, f'{{"dataframe_split": {FRAME}, "params": {{"k": 5}}}}'),
        ("ndarray", False, ARRAY, ARRAY),
        ("ndarray", True, PARAMS % ARRAY, '{"inputs": [[1.0, 0.0]], "params": {"k": 5}}'),
        ("json_object", False, CHAT, CHAT),
        ("json_object", False, '{"product": "x"}', '{"inputs": {"product": "x"}}'),
        ("json_object", False, '["a", "b"]', '{"inputs": ["a", "b"]}'),
    ],
)
def test_a_bare_example_becomes_a_request(kind: str, params: bool, text: str, request_text: str) -> None:
    assert json.loads(request_of(Example(Path("x"), kind, params), text)) == json.loads(request_text)


@pytest.mark.parametrize(
    ("kind", "params", "text"),
    [
        ("sparse_matrix_csr", False, '{"data": [1.0], "indices": [0], "indptr": [0, 1], "shape": [1, 1]}'),
        ("json_object", False, '"hello"'),
        ("ndarray", False, "[1.0]"),
        ("dataframe", True, FRAME),
        ("", False, FRAME),
        ("dataframe", False, "{"),
    ],
)
def test_what_is_no_request_in_any_words_is_none(kind: str, params: bool, text: str) -> None:
    with pytest.raises(ValueError, match=r"example of the type|no parameters|Expecting"):
        request_of(Example(Path("x"), kind, params), text)


def test_where_a_package_says_what_its_example_is(make_folder: MakeFolder) -> None:
    package = read_package(make_folder())
    assert package.input_example == Example(package.folder / "serving_input_example.json"), "a request already"
    bare = package.folder / "input_example.json"
    info = {"artifact_path": bare.name, "type": "dataframe", "params": "true"}
    assert find_example(package.folder, {"saved_input_example_info": info, "mlflow_version": "2.14.3"}) == Example(bare, "dataframe", True)
    # MLflow 1's own server takes it as it is.
    assert find_example(package.folder, {"saved_input_example_info": info, "mlflow_version": "1.30.0"}) == Example(bare)
    for wrong in (None, [], {}, {"artifact_path": 1}, {"artifact_path": ""}, {"artifact_path": "no.json"}, {"artifact_path": "../x"}):
        assert find_example(package.folder, {"saved_input_example_info": wrong}) is None


@pytest.mark.parametrize(
    ("mlmodel", "text", "asked"),
    [
        (MLMODEL, FRAME, "/mlwf-model/serving_input_example.json"),
        (OLD_MLMODEL, FRAME, "/tmp/example.json"),
        (OLD_MLMODEL, "[" * 100_000, None),
        (OLD_MLMODEL, "{", None),
    ],
)
def test_the_proof_asks_with_it(make_folder: MakeFolder, tmp_path: Path, mlmodel: str, text: str, asked: str | None) -> None:
    commands: list[list[str]] = []

    def run(_runner: object, _image: Path, command: list[str], _what: str, **_more: object) -> str:
        commands.append(command)
        (tmp_path / "proof/result.json").write_text('{"state": "loaded"}')
        return ""

    notes: list[str] = []
    kit = SimpleNamespace(tool=SimpleNamespace(run=run), runner=SimpleNamespace(note=notes.append, environ={}))
    package = read_package(make_folder({"MLmodel": mlmodel, "input_example.json": text}))
    assert prove(kit, tmp_path / "image", package, tmp_path) == Verdict("loaded")  # type: ignore[arg-type]
    assert commands[0][3:] == ([asked] if asked else [])
    made = [json.loads(each.read_text()) for each in tmp_path.glob("proof/example.json")]
    assert made == ([{"dataframe_split": json.loads(FRAME)}] if asked == "/tmp/example.json" else [])
    assert any("not asked" in note for note in notes) == (asked is None)
