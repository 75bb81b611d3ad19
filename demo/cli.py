"""`bin/demo up|down|status|env`."""

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import FrameType

from demo import settings as demo_settings
from demo.boxes import stop_boxes
from demo.containers import choose_runtime, remove_containers
from demo.errors import DemoError
from demo.home import Home
from demo.parts import Part, all_parts, console_url
from demo.processes import ENDING_SIGNALS
from demo.settings import Settings
from demo.setup import make_bucket, prepare
from demo.texts import exports, next_steps

LOOK_SECONDS = 2.0


class _Stopped(KeyboardInterrupt):
    """A signal asked the foreground demo to end: Ctrl-C, or another that means the same."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="bin/demo", description="The whole product on loopback; DEMO_HOME names its folder.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start what does not run, and wait until it is ready")
    up.add_argument("--foreground", action="store_true", help="stay, start again what ends, and stop all at Ctrl-C")
    commands.add_parser("down", help="stop everything; all data stay")
    commands.add_parser("status", help="what runs; exit status 0 if all does, 3 if not")
    commands.add_parser("env", help='export lines for a shell: eval "$(bin/demo env)"')
    given = parser.parse_args()
    try:
        settings = demo_settings.load()
        status = _run(given, Home(settings.home), settings)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        status = 1
    except OSError as error:
        where = error.filename or "the demo's folder"
        print(
            f"demo: {where} cannot be used ({error.strerror}): make room and rights there, or set DEMO_HOME to another folder",
            file=sys.stderr,
        )
        status = 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; bin/demo up goes on from here, bin/demo down stops what was started", file=sys.stderr)
        status = 128 + signal.SIGINT
    sys.exit(status)


def _run(given: argparse.Namespace, home: Home, settings: Settings) -> int:
    if given.command == "up":
        with home.locked():
            choose_runtime(home, settings)
        return _foreground(home, settings) if given.foreground else _up(home, settings)
    if not home.exists():
        if given.command == "env":
            raise DemoError(f"there is no demo in {home.path}: start one with bin/demo up")
        print(f"no demo in {home.path}")
        return 3 if given.command == "status" else 0
    if given.command == "down":
        return _down(home, settings)
    return _status(home, settings) if given.command == "status" else _env(home, settings)


def _up(home: Home, settings: Settings) -> int:
    with home.locked():
        home.save(replace(home.state(), wanted=True))
        started = _ensure(home, settings)
        for part in all_parts(home, settings):  # one that runs since an earlier command may still not be ready
            part.wait_ready()
        make_bucket(home)  # here, since that command may have ended before the store was ready
    print(next_steps(home, settings) if started else f"The demo runs already: {console_url(home)}")
    return 0


def _ensure(home: Home, settings: Settings) -> bool:
    """Start every part that does not run and wait for those; True if there was one. The caller holds the lock."""
    parts = all_parts(home, settings)
    if all(part.running() for part in parts):
        return False
    prepare(home, settings)
    since = time.monotonic()
    started = [part for part in parts if part.ensure_started()]
    for part in started:
        part.wait_ready()
        print(f"  {part.name:<13} ready after {time.monotonic() - since:4.1f} s   {part.address}", flush=True)
    return bool(started)


def _down(home: Home, settings: Settings) -> int:
    with home.locked(), ExitStack() as end:  # the last one first, and each of them whatever became of the others
        end.callback(_note_unwanted, home)  # the last: a full disk must keep nothing from ending; who looks meanwhile waits for the lock
        end.callback(home.drop_alias)
        for part in all_parts(home, settings):
            if part.name == "service":  # once that has ended, nobody is left to start them again
                end.callback(_stop_servers, home, settings)
            end.callback(part.stop)
    print(f"The demo is stopped; its data stay in {home.path}")
    return 0


def _note_unwanted(home: Home) -> None:
    home.save(replace(home.state(), wanted=False))


def _stop_servers(home: Home, settings: Settings) -> None:
    docker_host = home.state().docker_host
    if docker_host is None:
        stop_boxes(home.service / "servers")
    else:
        remove_containers(docker_host, settings, home.service)


def _status(home: Home, settings: Settings) -> int:
    parts: list[Part] = all_parts(home, settings)
    running = {part.name: part.running() for part in parts}
    for part in parts:
        process = running[part.name]
        print(f"{part.name:<13} {f'running, process {process.pid}' if process else 'stopped':<24} {part.address}")
    return 0 if all(running.values()) else 3


def _env(home: Home, settings: Settings) -> int:
    print(exports(home, settings))
    return 0


def _foreground(home: Home, settings: Settings) -> int:
    """Run until a signal, or until `bin/demo down` elsewhere; then stop all."""
    try:
        with _signals():
            _up(home, settings)
            print("Ctrl-C stops the demo.", flush=True)
            while home.state().wanted:
                threading.Event().wait(LOOK_SECONDS)
                with home.locked():
                    if home.state().wanted:
                        _ensure(home, settings)
    except _Stopped:
        print("\nStopping …", flush=True)
    finally:
        _down(home, settings)
    return 0


@contextmanager
def _signals() -> Iterator[None]:
    """Inside, the signals that end a foreground program raise _Stopped once; the clean-up that follows is not disturbed by more of them."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise _Stopped

    for number in ENDING_SIGNALS:
        signal.signal(number, stop)
    yield
