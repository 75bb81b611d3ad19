"""Every text has its Japanese, every variable its line in the documentation, and the distribution stands alone."""

import ast
import gettext
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from mlwf.errors import MlwfError
from mlwf.i18n import _, catalogue, language_of, parse_po, use_language
from mlwf.wire import connection

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = ROOT / "mlwf" / "src" / "mlwf"
PLACEHOLDER = re.compile(r"\{[^}]*\}")
# Words of MLflow's API and of ours, what is composed to a variable of Apptainer's, what is set or unset for another program, and what our
# own script for the shell sets.
NO_VARIABLES = {
    "ENDPOINT_NOT_FOUND", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "NOT_MLFLOW", "NO_MODEL", "NO_VERSION",
    "DISABLE_CACHE", "TMP_SANDBOX", "HF_HUB_OFFLINE", "MLFLOW_DISABLE_TELEMETRY", "SOURCE_DATE_EPOCH",
    "SINGULARITY_NO_OCI", "NO_HTTPS", "COMP_WORDS",
}  # fmt: skip
# By the container tools and by botocore.
COMPOSED = {"APPTAINER_DOCKER_USERNAME", "APPTAINER_DOCKER_PASSWORD", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"}


def _marked() -> Iterator[str]:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"_", "N_"}:
                if isinstance(node.args[0], ast.Constant):
                    yield str(node.args[0].value)
                else:
                    assert ast.unparse(node) in {"_(field.meaning)"}, f"{path}: {ast.unparse(node)} is not a literal text"


def test_every_text_has_its_japanese_and_no_more() -> None:
    japanese, texts = catalogue("ja"), set(_marked())
    assert len(texts) > 200
    assert sorted(texts - set(japanese)) == []
    assert sorted(set(japanese) - texts) == []
    assert [text for text, other in japanese.items() if not other] == []


def test_placeholders_survive_translation() -> None:
    for text, other in catalogue("ja").items():
        assert sorted(PLACEHOLDER.findall(text)) == sorted(PLACEHOLDER.findall(other)), text


def test_the_language_of_the_environment() -> None:
    assert language_of({"LC_ALL": "ja_JP.UTF-8", "LANG": "C"}) == "ja"
    assert language_of({"LC_ALL": "", "LANG": "ja"}) == "ja"
    assert language_of({"LANGUAGE": "fr:ja", "LANG": "C.UTF-8"}) == "ja"
    assert language_of({"LANGUAGE": "en", "LC_ALL": "ja_JP.UTF-8"}) == "en"
    assert [language_of({"LANG": value}) for value in ("C.UTF-8", "fr_FR", "")] == ["en", "en", "en"]


def test_a_page_in_japanese_inside_a_process_in_english() -> None:
    with use_language("ja"):
        assert _("Done.") == "完了しました。"
        assert str(MlwfError(_("The operation failed"), cure=_("Correct it."))) == "操作に失敗しました。直してください。"
    assert _("Done.") == "Done."
    assert str(MlwfError("What", "why.", "Cure.")) == "What: why. Cure."


def test_usage_errors_and_help_are_in_the_readers_language() -> None:
    def said(*argv: str) -> str:
        environ = {**os.environ, "LANGUAGE": "", "LC_ALL": "ja_JP.UTF-8"}
        done = subprocess.run([sys.executable, "-m", "mlwf.cli.main", *argv], env=environ, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert "エラー: オプションがありません '--bucket'" in said("server", "create", "g/wine")
    assert "コマンド 'sever' はありません" in said("sever")
    assert {"使い方:", "オプション:", "コマンド:"} <= set(said("--help").split())


@pytest.mark.parametrize("locale", ["C.UTF-8", "ja_JP.UTF-8"])
def test_no_line_of_a_list_of_commands_is_cut(locale: str) -> None:
    script = "from mlwf.cli.main import run\nfor group in ('', 'server', 'cache', 'lease', 'token'): run([*group.split(), '--help'])"
    environ = {**os.environ, "LANGUAGE": "", "LC_ALL": locale, "COLUMNS": "80"}
    told = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(told) > 80
    assert [line for line in told if line.endswith("...") and "[OPTIONS]" not in line] == []


def test_clicks_catalogue_is_compiled_from_what_stands_beside_it() -> None:
    folder = SOURCE / "locale" / "click" / "ja" / "LC_MESSAGES"
    with (folder / "messages.po").open("rb") as file:
        texts = read_po(file, locale="ja")
    with (folder / "messages.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for each in filter(lambda each: each.id, texts):
        if each.pluralizable:
            assert compiled.ngettext(*each.id, 2) == each.string[0]
        else:
            assert compiled.gettext(str(each.id)) == each.string


def test_our_reader_finds_in_a_catalogue_what_babels_finds() -> None:
    """In the console's: Babel leaves the ``\\b`` of click's help as it is written, which gettext's own programs do not."""
    file = ROOT / "ood_app/locale/ja/LC_MESSAGES/console.po"
    with file.open("rb") as stream:
        entries = [each for each in read_po(stream, locale="ja") if each.id]
    assert [each.id for each in entries if each.fuzzy] == []
    assert parse_po(file.read_text("utf-8")) == {str(each.id): str(each.string) for each in entries}


def test_one_word_for_one_thing_in_japanese() -> None:
    """As the published walk-through has them."""
    catalogues = [path for path in ROOT.rglob("*.po") if not {".venv", "var", "build"} & set(path.relative_to(ROOT).parts)]
    assert len(catalogues) >= 4
    pages = list((ROOT / "docs").rglob("*.ja.md"))
    assert len(pages) >= 2
    for path in [*catalogues, *pages, ROOT / "tracking_server/guard/pages.py"]:
        assert not re.findall("利用者|鍵|サーバー", path.read_text("utf-8")), path


def test_a_broken_catalogue_is_noticed() -> None:
    with pytest.raises(ValueError, match="line 2"):
        parse_po('msgid "a"\nmsgxyz "b"\n')


def _nodes() -> Iterator[ast.AST]:
    for path in SOURCE.rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_text("utf-8")))


def _words(*nodes: ast.AST) -> set[str]:
    """The names in capitals among the constants of these."""
    constants = (each.value for node in nodes for each in ast.walk(node) if isinstance(each, ast.Constant))
    return {text for text in constants if isinstance(text, str) and re.fullmatch("[A-Z][A-Z0-9_]+[A-Z0-9]", text)}


def _asked() -> set[str]:
    """What an environment is asked for by name, also where its `get` is handed to another function."""
    found = set()
    for node in _nodes():
        if isinstance(node, ast.Subscript) and re.search(r"environ(ment\(\))?$", ast.unparse(node.value)):
            found |= _words(node.slice)
        if isinstance(node, ast.Call) and any(
            re.search(r"environ(ment\(\))?\.get$", ast.unparse(each)) for each in (node.func, *node.args)
        ):
            found |= _words(*node.args)
    return found


def test_every_variable_that_is_read_is_documented_and_no_other() -> None:
    """Whatever has a variable's form in the code is one, unless it is named above."""
    page = (ROOT / "docs" / "reference" / "mlwf.md").read_text("utf-8")
    section = page.split("## Environment\n")[1].split("\n## ")[0]
    words = _words(*_nodes()) | {f"MLWF_{name.upper()}" for name in connection.NAMES} | COMPOSED
    read = (_asked() | {word for word in words if "_" in word}) - NO_VARIABLES
    assert {"MLWF_SERVICE", "LANGUAGE", "SLURM_JOB_ID", "HOME", "UV_INDEX"} <= read
    assert sorted(read - set(re.findall("`([A-Z0-9_]+)`", section))) == []
    assert sorted(set(re.findall(r"^\| `([A-Z0-9_]+)` \|", section, flags=re.MULTILINE)) - words) == []
    assert words >= NO_VARIABLES, "exemptions that nobody needs"


@pytest.mark.parametrize("program", ["mlwf", "mlwf_export_model", "mlwf_create_image"])
def test_a_narrow_locale_shows_the_help_all_the_same(program: str) -> None:
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1", "LC_ALL": "ja_JP.UTF-8"}
    done = subprocess.run([Path(sys.executable).parent / program, "--help"], env=environ, capture_output=True, check=False)
    assert (done.returncode, b"Traceback" in done.stderr, program.encode() in done.stdout) == (0, False, True)


@pytest.mark.heavy
def test_it_installs_alone(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, venv], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", venv / "bin" / "python", ROOT / "mlwf"], check=True, cwd=tmp_path)
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "ja_JP.UTF-8", "MLWF_SERVICE": "unix:///nowhere/s.sock"}
    for program in ("mlwf", "mlwf_export_model"):
        done = subprocess.run([venv / "bin" / program, "--help"], env=env, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert "例:" in done.stdout or "サービス" in done.stdout
    done = subprocess.run([venv / "bin" / "mlwf", "server", "list"], env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, "ソケットがありません" in done.stderr) == (1, True)
