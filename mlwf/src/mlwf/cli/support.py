"""What the commands of `mlwf` share: the GROUP/ENV argument, options, keys, waiting with the steps on the screen."""

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from mlwf.answers import Operation, Step
from mlwf.aws_profiles import KeyPair, key_pair
from mlwf.client import Client
from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _
from mlwf.line import ENV_NAME
from mlwf.secret import Secret
from mlwf.settings import environment

COMPLETION_SECONDS = 2.0
MARKS = {"succeeded": "[green]✓[/]", "failed": "[red]✗[/]", "undone": "[yellow]↶[/]"}
Command = Callable[..., Any]


@dataclass(frozen=True)
class Target:
    """One tracking server, as the user names it."""

    group: str
    env: str

    def __str__(self) -> str:
        return f"{self.group}/{self.env}"


class Amount(click.FloatRange):
    """A number of something: `nan` and `inf` are numbers for Python, and of nothing."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(_("{value} is not an amount.").format(value=value), param, ctx)
        return number


class TargetType(click.ParamType[Target]):
    """GROUP/ENV, completed by asking the service: its servers, or with `new` the groups in which one may be created."""

    name = "GROUP/ENV"

    def __init__(self, *, new: bool = False, deleted: bool = False) -> None:
        self._new = new
        self._deleted = deleted

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Target:
        if isinstance(value, Target):
            return value
        group, slash, env = str(value).partition("/")
        if not (group and slash and env) or "/" in env:
            self.fail(_("{value} is not GROUP/ENV, such as gaa50000/wine.").format(value=value), param, ctx)
        if self._new and not re.fullmatch(ENV_NAME, env):
            self.fail(_("ENV has 2 to 255 of a-z, 0-9, '-' and '_', a letter or digit first."), param, ctx)
        return Target(group, env)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        try:
            with Client.from_environment(timeout=COMPLETION_SECONDS) as client:
                names = self._names(client)
        except MlwfError:
            return []  # a completion has no place for a message; the command itself will say it
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    def _names(self, client: Client) -> list[str]:
        if self._new:
            return [f"{group.name}/" for group in client.me().groups if group.may_create]
        found = client.servers(deleted=self._deleted)
        wanted = [server for server in found if (server.status == "deleted") == self._deleted]
        return list(dict.fromkeys(f"{server.group}/{server.env_name}" for server in wanted))


def target_argument(*, new: bool = False, deleted: bool = False) -> Callable[[Command], Command]:
    return click.argument("target", metavar="GROUP/ENV", type=TargetType(new=new, deleted=deleted))


def stacktrace_option(command: Command) -> Command:
    """`--stacktrace`; the program's last frame looks for it itself, so the command does not get it."""
    return click.option("--stacktrace", is_flag=True, expose_value=False, help=_("Add the traceback to an error message."))(command)


def wait_option(command: Command) -> Command:
    return click.option("--wait/--no-wait", default=True, help=_("Wait for the end and show the steps (default), or only ask for it."))(
        command
    )


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help=_("Print JSON, for scripts."))(command)


def key_options(command: Command) -> Command:
    """Where the keys come from. There is no option that takes a key: arguments can be read by everybody on the host."""
    command = click.option("--profile", metavar="NAME", help=_("Profile of ~/.aws/credentials that holds the keys."))(command)
    return click.option(
        "--credentials-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="PATH",
        help=_("Another credentials file; its profile 'default' unless --profile is given."),
    )(command)


def keys(profile: str | None, credentials_file: Path | None) -> KeyPair:
    """The key pair from profile, file, environment or a prompt, in this order. Raises MlwfError."""
    if profile or credentials_file:
        return key_pair(profile or "default", credentials_file)
    environ = environment()
    access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if access and secret:
        if environ.get("AWS_SESSION_TOKEN"):
            raise WrongUseError(
                _("The key in AWS_ACCESS_KEY_ID is a temporary one (AWS_SESSION_TOKEN is set) and would stop working"),
                cure=_("Use an access key that does not expire."),
            )
        return KeyPair(access, Secret(secret))
    if not sys.stdin.isatty():
        raise WrongUseError(
            _("There is no key for the bucket"),
            cure=_("Give --profile NAME or --credentials-file PATH, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."),
        )
    access = click.prompt("cloud_storage_accesskey_ID", err=True)
    return KeyPair(access, Secret(click.prompt("cloud_storage_secret_accesskey", hide_input=True, err=True)))


class StepPrinter:
    """Prints each step of an operation once, when it ends; on a terminal a spinner names the one under way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed: set[tuple[str, str]] = set()
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("…")
            self._status.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._status:
            self._status.stop()

    def __call__(self, operation: Operation) -> None:
        for step in operation.steps:
            if step.state in MARKS and (step.name, step.state) not in self._printed:
                self._printed.add((step.name, step.state))
                self._console.print(_line(step))
        running = [step for step in operation.steps if step.state == "running"]
        if self._status:
            self._status.update(escape(running[-1].words if running else operation.message or "…"))


def _line(step: Step) -> str:
    return f"{MARKS[step.state]} {escape(step.words)}"


def follow(client: Client, console: Console, operation: Operation, *, wait: bool) -> bool:
    """Shows the operation to its end, unless not asked to wait. Answers whether it is known to have succeeded."""
    if not wait and not operation.finished:
        words = _("Requested; check with 'mlwf server show {group}/{env}'.")
        console.print(words.format(group=operation.group, env=operation.env_name), markup=False)
        return False
    with StepPrinter(console) as printer:
        try:
            done = client.wait(operation, on_change=printer)
        except KeyboardInterrupt:
            console.print(_("No longer waiting; the service goes on with it."))
            raise
    console.print(escape(done.message) or _("Done."), style="bold")
    return True
