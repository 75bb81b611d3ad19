"""mlwf: the users' command."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import cast

import click
from click.shell_completion import add_completion_class, get_completion_class

from mlwf.cli import access, change
from mlwf.cli.cache import cache
from mlwf.cli.lease import lease
from mlwf.cli.server import server
from mlwf.cli.tab_key import Bash
from mlwf.cli.token import token
from mlwf.i18n import _
from mlwf.report import show_failure
from mlwf.streams import print_anything

add_completion_class(Bash)
LATER = {"publish": "mlwf.cli.publish", "verify": "mlwf.cli.publish", "doctor": "mlwf.cli.doctor", "job": "mlwf.cli.job"}
"""Commands by their modules, with the AWS library in them, which takes as long as all else: not for each press of Tab."""


class Program(click.Group):
    """Imports those when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *LATER])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in LATER:
            return super().get_command(ctx, cmd_name)
        return cast("click.Command", getattr(import_module(LATER[cmd_name]), cmd_name))


@click.group(
    cls=Program,
    help=_(
        """Tools for users of self-service MLflow tracking servers.

    \b
    mlwf server …        create, start, stop, upgrade, delete servers; register their users
    mlwf_export_model …  export a registered model as a package
    mlwf_create_image …  make a Singularity image that runs a package
    mlwf publish …       put a package into a bucket, checked; mlwf verify looks at one
    mlwf doctor …        what this node lacks

    The service is found by MLWF_SERVICE (unix:///path/service.sock or https://…), by the settings files ~/.config/mlwf/settings.yml
    and /etc/aihub/mlwf.yml, or on this host.
    """
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(version("mlwf"), prog_name="mlwf")
def cli() -> None:
    pass


@cli.command(
    help=_(
        """Print a shell's script: Tab completes commands and GROUP/ENV.

    \b
    Examples:
      eval "$(mlwf completion bash)"                            # in ~/.bashrc
      eval "$(mlwf completion zsh)"                             # in ~/.zshrc
      mlwf completion fish > ~/.config/fish/completions/mlwf.fish
    """
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    maker = get_completion_class(shell)
    if maker is None:
        raise click.UsageError(_("There is no completion for {shell}.").format(shell=shell))
    click.echo(maker(cli, {}, "mlwf", "_MLWF_COMPLETE").source())


cli.add_command(server)
cli.add_command(cache)
cli.add_command(lease)
cli.add_command(token)
for command in (access.auth, access.env, access.storage, change.upgrade, change.rollback, change.resize):
    server.add_command(command)


def run(args: Sequence[str]) -> int:
    """Runs one command and answers its exit status: 0, 1 for a failure, 2 for wrong use, 130 after Ctrl-C."""
    try:
        return int(cli.main(list(args), prog_name="mlwf", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(_("Interrupted."), err=True)
        return 130
    except Exception as error:  # noqa: BLE001  # the last frame: every failure becomes one sentence and a status
        return show_failure(error, stacktrace="--stacktrace" in args)


def main() -> None:
    print_anything()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
