"""`aihub` in Japanese: all that it says of its own, while what scripts read stays as it is."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backend.cli.checks import NAMES
from backend.serving.supervisor import alone
from backend.settings import Settings
from tests.service.edge.admin import Admin
from tests.service.edge.live import AIHUB
from tests.service.edge.world import World

ROOT = Path(__file__).parents[3]
JAPANESE = re.compile("[ぁ-んァ-ヶ一-龠]")
HELPS = """
import json, sys
import click
from backend.cli.main import aihub

def walk(command, name):
    context = click.Context(command, info_name=name)
    options = [each.get_help_record(context)[1] for each in command.get_params(context) if isinstance(each, click.Option)]
    yield name, [command.help, *options], command.get_help(context)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            yield from walk(command.get_command(context, each), f"{name} {each}")

json.dump(list(walk(aihub, "aihub")), sys.stdout)
"""


def run(*argv: str, file: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {"PATH": os.environ["PATH"], "AIHUB_SETTINGS": str(file), "LC_ALL": "ja_JP.UTF-8"} | environment
    return subprocess.run(argv, env=known, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def said(*argv: str, file: Path, code: int = 0) -> str:
    """By the command, on both of its outputs."""
    done = run(AIHUB, *argv, file=file)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_help_is_in_japanese(tmp_path: Path) -> None:
    helps = json.loads(run(sys.executable, "-c", HELPS, file=tmp_path / "none.yml").stdout)
    assert len(helps) > 20
    for name, texts, whole in helps:
        assert [text for text in texts if not JAPANESE.search(text)] == [], name
        assert whole.startswith("使い方: "), name
        assert len(max(whole.splitlines(), key=len)) <= 110, name
    assert "servers     一覧、表示、起動" in helps[0][2]
    assert "…" not in helps[0][2]


def test_failures_and_wrong_use_are_told_in_japanese(admin: Admin, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("state_dri: /x\nworkers: 0\n")
    assert said("check", file=wrong, code=1).splitlines() == [
        f"aihub: {wrong} の 1 行目: state_dri という設定はありません。state_dir のことですか",
        f"aihub: {wrong} の 2 行目: workers が 0 で小さすぎます。1 以上にしてください",
    ]
    assert "コマンド 'nonsense' はありません" in said("nonsense", file=admin.file, code=2)
    assert "GROUP/ENV の形で書いてください" in said("servers", "start", "wine", file=admin.file, code=2)
    assert said("servers", "start", "g/wine", file=admin.file, code=1) == (
        "aihub: グループ g に、参照できるトラッキングサーバ wine はありません。一覧で名前を確かめてください。\n"
    )


def test_check_speaks_japanese_and_its_json_keeps_names_and_states(admin: Admin, world: World) -> None:
    admin.run("init")
    world.made()
    (world.service.settings.servers_dir / "zzzzzzzzzzzz").mkdir()
    table = [re.split(r" {2,}", line.strip()) for line in said("check", file=admin.file).splitlines()]
    assert table[0] == ["状態", "項目", "内容", "対処"]
    assert {row[0] for row in table[1:]} == {"正常", "警告"}
    (orphan,) = (row for row in table if row[1] == "持ち主のないもの")
    assert (orphan[0], orphan[2]) == ("警告", "フォルダ zzzzzzzzzzzz")
    found = json.loads(said("check", "--json", file=admin.file))
    assert {each["state"] for each in found} == {"ok", "warning"}
    assert {"state", "disk", "keys", "orphans"} <= {each["name"] for each in found}
    assert all(JAPANESE.search(each["cure"]) for each in found if each["cure"])
    assert "完全に削除しますか? 答える人がいません。--yes を付けてください" in said("check", "--remove-orphans", file=admin.file, code=2)


def test_every_name_of_a_finding_can_be_read(admin: Admin) -> None:
    source = "".join((ROOT / "backend" / "checks" / name).read_text() for name in ("service.py", "containers.py", "room.py"))
    names = set(re.findall(r'name="([^"]+)"', source)) | set(re.findall(r'^    \("([^"]+)", [\w.]+\),$', source, re.MULTILINE))
    assert len(names) > 15
    assert names - set(NAMES) == {"nginx", "DNS", "MLflow", "MUNGE", "somaxconn"}  # words of their own
    assert set(NAMES) <= names


def test_what_is_asked_for_and_what_became_of_it_are_told_in_japanese(admin: Admin, world: World) -> None:
    world.made()
    assert "サービスが動いていません" in said("servers", "stop", "gaa50000/wine", file=admin.file)
    (asked, _create) = json.loads(said("operations", "--json", file=admin.file))
    assert (asked["kind"], asked["state"], asked["message"]) == ("stop", "pending", "サーバを停止しています …")


@pytest.mark.parametrize(("log_format", "told"), [("text", "別の aihub serve (プロセス"), ("json", "another aihub serve (process")])
def test_what_serve_says_to_who_sits_before_it_and_what_it_logs(admin: Admin, world: World, log_format: str, told: str) -> None:
    admin.run("init")
    admin.file.write_text(f"{admin.file.read_text()}log_format: {log_format}\n")
    settings: Settings = world.service.settings
    with alone(settings, "web"):
        refused = run(AIHUB, "serve", file=admin.file)
    assert refused.returncode == 1
    assert told in refused.stderr
