"""info.yaml: the contract's keys in order, the required ones marked, and texts that come back whatever they hold."""

import re
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlwf.export import card
from mlwf.export.registry import Location, ModelVersion
from mlwf.publish.form_file import FormFile
from mlwf.publish.package import parse_form

from mlwf import info

ORDER = [
    "Name",
    "Description",
    "Keywords",
    "UsageInfo",
    "Distribution",
    "Creator",
    "License",
    "Version",
    "DateCreated",
    "DateModified",
    "DatePublished",
    "Identifier",
    "Citation",
    "AdditionalInfo",
]
REQUIRED = {("Name",), ("Description",), ("Keywords",), ("Creator", "Name"), ("Creator", "ContactPoint"), ("License", "Name")}
HOSTILE = "x: [y\n- !!python/object/apply:os.system ['id']\n# c\n\tt \u2028 \x85 \x07 \ud800 '\"\\ |>&*@`%{"


def test_the_contracts_keys_in_order() -> None:
    assert list(info.empty()) == ORDER
    assert {field.path for field in info.FIELDS if field.required} == REQUIRED
    assert list(yaml.safe_load(info.dump(info.empty()))) == ORDER


def test_what_a_human_must_fill_is_marked_until_it_is_filled() -> None:
    form = info.empty()
    assert info.dump(form).count("REQUIRED, still to be filled") == len(REQUIRED) == len(info.missing(form))
    form["Name"], form["Description"], form["Keywords"] = "n", "d" * 50, ["k"]
    form["Creator"]["Name"], form["License"]["Name"] = "c", "MIT"
    form["Creator"]["ContactPoint"]["URL"] = "https://x"
    assert info.missing(form) == []
    assert "REQUIRED, still" not in info.dump(form)
    form["Description"] = " " + "d" * 49
    assert [field.path for field in info.missing(form)] == [("Description",)]


TEXTS = st.text(max_size=200) | st.text(alphabet=" \n\t:#-'\"|>\\\x85\u2028é日", max_size=40)


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS, st.lists(TEXTS, max_size=4))
@example(HOSTILE, HOSTILE, [HOSTILE])
@example("\n", "\n", ["\n"])
@example("a\n\n", "a\n\n", ["a\n", "\n\n"])
def test_any_text_comes_back(description: str, contact: str, keywords: list[str]) -> None:
    form = info.empty() | {"Description": description, "Keywords": keywords, "AdditionalInfo": description}
    form["Creator"]["ContactPoint"]["Email"] = contact
    text = info.dump(form)
    assert yaml.safe_load(text.encode("utf-8")) == info.clean(form)


@pytest.mark.parametrize(
    "text", ["1e5", "12e4567", "-1E-3", "08", "0o17", "1.0e3", "+.5", "12:30", "yes", "0x1f", "1_000", "08_15", "1_0e3", "._1"]
)
def test_a_text_that_looks_like_a_number_is_one_to_every_reader(text: str) -> None:
    """A commit or a parameter as a keyword, say: the form that an export wrote must pass the check of a publication."""
    form = info.empty() | {"Name": text, "Keywords": [text, f"{text}x"]}
    read = FormFile(info.dump(form)).info
    assert (read["Name"], list(read["Keywords"])) == (text, [text, f"{text}x"])


def _found(**changes: Any) -> ModelVersion:
    version = {"version": "1", "run_id": "r1", "creation_timestamp": 1764000000000, "last_updated_timestamp": 1764000001000}
    return ModelVersion("m", "1", version | changes, Location("proxied", "0/x"))


PACKAGE = card.Package(10, "ab" * 32, 1, 5)


LEVELS = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12))
# Each is YAML that could be taken for an MLmodel, and once cost the export that it came with, or the machine's memory.
ODD = [
    b"flavors: {python_function: null}",
    b"flavors: {python_function: [1]}\nmlflow_version: [1]",
    b"signature: {inputs: &a [*a]}",
    f"a0: &a0 [x]\n{LEVELS}signature: {{inputs: *a11}}".encode(),
    f"a: &a {'x' * 100_000}\nsignature: {{inputs: [{'*a, ' * 100_000}]}}".encode(),
    b"signature: {inputs: {2020-01-01: x}}",
    b"flavors: {2020-01-01: x}",
    b"mlflow_version: 0x" + b"f" * 5000,
    b"mlflow_version: " + b"1:" * 400_000 + b"1",
    b"mlflow_version: " + b"1:" * 40 + b"1.5",
    b"mlflow_version: !!bool x",
    b"mlflow_version: !!timestamp x",
]


def test_hostile_registry_and_mlmodel_do_no_harm() -> None:
    tags = [{"key": HOSTILE, "value": HOSTILE}, {"key": None}, "x", {"key": "mlflow.x", "value": "y"}]
    for mlmodel in (
        b"\xff\xfe",
        b"[" * 100_000,
        b"a: &a [*a]",
        b"flavors: [1, 2]\nsignature: 3",
        b"!!python/name:os.system",
        b"",
        b"x" * (5 << 20),
        *ODD,
    ):
        form = card.fill(_found(tags=tags, description=HOSTILE), PACKAGE, mlmodel)
        assert yaml.safe_load(info.dump(form)) == info.clean(form)
        assert len(info.dump(form)) < 100_000
        assert f"| SHA-256 of model.tar.gz | {PACKAGE.sha256} |" in form["AdditionalInfo"]
    assert form["Description"] == HOSTILE
    assert not any("mlflow.x" in word for word in form["Keywords"])


def test_the_export_does_not_depend_on_what_nobody_foresaw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "_usage", lambda _found, described: described["a key that is not there"] if described else "")
    form = card.fill(_found(aliases=5), PACKAGE, b"a: 1")
    assert f"| SHA-256 of model.tar.gz | {PACKAGE.sha256} |" in form["AdditionalInfo"]


def test_markdown_in_a_value_stays_in_its_cell() -> None:
    run = {"data": {"params": [{"key": "k|<b>", "value": "v\n| x | y |\n### Metrics"}], "metrics": [{"key": "loss", "value": 0.5}]}}
    found = ModelVersion("m", "1", {"version": "1"}, Location("proxied", "x"), run=run)
    text = card.fill(found, PACKAGE, b"")["AdditionalInfo"]
    assert "| k\\|&lt;b> | v \\| x \\| y \\| ### Metrics |" in text
    assert text.count("### Metrics\n") == 1


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        (r'[{"name": "\u30a2\ud83c\udf77 \ud800", "type": "double"}]', '[{"name": "ア🍷 ?", "type": "double"}]'),
        ('[{"name": "品質"}]', '[{"name": "品質"}]'),
        (r"{not JSON: \u30a2", r"{not JSON: \u30a2"),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_a_columns_name_is_shown_in_its_letters(recorded: str, shown: str) -> None:
    """MLflow escapes in the file what is not ASCII."""
    mlmodel = f"mlflow_version: 3.17.2\nsignature: {{inputs: '{recorded}'}}\n".encode()
    text = info.clean(card.fill(_found(), PACKAGE, mlmodel)["AdditionalInfo"])
    assert f"```json\n{shown}\n```" in text
    assert "3.17.2" in text


def test_times() -> None:
    assert card.iso_time("1764000000000") == "2025-11-24T16:00:00+00:00"
    assert [card.iso_time(value) for value in (None, "x", 10**30)] == ["", "", ""]


@pytest.mark.parametrize("letter", ["v", "&", "値", "\x07"])
def test_a_form_of_very_many_parameters_and_metrics_can_be_published(letter: str) -> None:
    """publish takes a megabyte."""
    data = {
        "params": [{"key": f"p{number}", "value": letter * 500} for number in range(2500)],
        "metrics": [{"key": f"m{number}/{letter * 200}", "value": 0.5} for number in range(20000)],
    }
    found = ModelVersion("m", "1", {"version": "1"}, Location("proxied", "x"), run={"data": data})
    form = card.fill(found, PACKAGE, b"")
    parse_form(info.dump(form).encode())
    text = form["AdditionalInfo"]
    assert "| p0 | " in text
    told = [int(count) for count in re.findall(r"^\| … \| and (\d+) more \|$", text, re.MULTILINE)]
    rows = [len(re.findall(rf"^\| {name}\d", text, re.MULTILINE)) for name in "mp"]
    assert [row + more for row, more in zip(rows, told, strict=True)] == [20000, 2500]
