"""mlwf_export_model: a registered model version as a package that can be published."""

import sys
import warnings
from pathlib import Path
from typing import Self

import click
import urllib3
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mlwf.ending import Terminated, end, raise_on_terminate
from mlwf.export.memory import keep_freed_memory
from mlwf.export.registry import ModelVersion
from mlwf.export.run import Exported, Wanted, export
from mlwf.i18n import _
from mlwf.report import show_failure, stderr
from mlwf.settings import environment
from mlwf.streams import print_anything

HELP = _(
    """Export a registered model: MLWFExportModel_YYYYMMDDhhmmss/ with artifacts/, model.tar.gz and info.yaml.

    The user name and password are those of MLflow's own client: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
    ~/.mlflow/credentials; or a token, MLFLOW_TRACKING_TOKEN. With AWS credentials that can read the server's bucket, the files come
    straight from the object store.

    \b
    Examples:
      mlwf_export_model --model-registry-url http://HOST:PORT/mlflow/ --model-name wine --model-version 2
      mlwf_export_model --model-registry-url http://HOST:PORT/mlflow/ --model-name wine --model-alias champion
    """
)


class TerminalReporter:
    """A progress bar on a terminal, silence elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._progress:
            self._progress.stop()

    def found(self, version: ModelVersion) -> None:
        if self._console.is_terminal:
            self._console.print(_("Found {name}, version {number}").format(name=version.name, number=version.number), markup=False)

    def begins(self, files: int, size: int | None, through: str) -> None:
        if not self._console.is_terminal:
            return
        words = {"store": _("{files} files, from the object store"), "server": _("{files} files, through the server")}[through]
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console)
        self._task = self._progress.add_task(words.format(files=files), total=size)
        self._progress.start()

    def arrived(self, count: int) -> None:
        if self._progress:
            self._progress.advance(self._task, count)


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--model-registry-url", "url", required=True, metavar="URL", help=_("The tracking server, as Service List shows it."))
@click.option("--model-name", "name", required=True, metavar="NAME", help=_("The registered model."))
@click.option("--model-version", "number", metavar="N", help=_("Its version."))
@click.option("--model-alias", "alias", metavar="ALIAS", help=_("An alias instead of a version."))
@click.option(
    "--output-dir",
    "output",
    metavar="DIRECTORY",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help=_("Where to make the folder; here by default."),
)
@click.option(
    "--through",
    type=click.Choice(["auto", "server", "store"]),
    default="auto",
    help=_("Read the files through the tracking server or straight from the object store; auto takes the store where your keys can."),
)
@click.option("--stacktrace", is_flag=True, help=_("Add the traceback to an error message."))
@click.version_option(package_name="mlwf")
def command(*, url: str, name: str, number: str | None, alias: str | None, output: Path, through: str, stacktrace: bool) -> None:
    if (number is None) == (alias is None):
        raise click.UsageError(_("Give either --model-version or --model-alias."))
    if number is not None and not (number.isascii() and number.isdigit()):
        raise click.UsageError(_("--model-version is a number; for a name use --model-alias."))
    # MLFLOW_TRACKING_INSECURE_TLS is the user's own choice; a warning for each request says nothing new.
    warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
    raise_on_terminate()
    console = stderr()
    try:
        with TerminalReporter(console) as reporter:
            result = export(Wanted(url, name, number, alias, output, through), environment(), reporter)
    except KeyboardInterrupt:
        end(130, _("Interrupted; nothing was kept."), console)
    except Terminated as ended:
        end(143, str(ended), console)
    except Exception as error:  # noqa: BLE001  # the last frame: every failure becomes one sentence and a status
        sys.exit(show_failure(error, stacktrace=stacktrace))
    _summary(result, console)


def _summary(result: Exported, console: Console) -> None:
    ways = {"store": _("straight from the object store"), "server": _("through the tracking server")}
    console.print(
        _("Version {version}: {files} files, {unpacked}, packed to {packed} in {seconds:.1f} s, {way}.").format(
            version=result.version,
            files=result.package.files,
            unpacked=decimal(result.package.unpacked),
            packed=decimal(result.package.size),
            seconds=result.seconds,
            way=ways[result.through],
        ),
        markup=False,
    )
    if result.because:
        console.print(_("Not straight from the object store: {reason}").format(reason=result.because), markup=False)
    console.print(_("Fill in what info.yaml marks as REQUIRED before you publish it."), markup=False)
    click.echo(str(result.folder))


def main() -> None:
    print_anything()
    keep_freed_memory()
    try:
        command(prog_name="mlwf_export_model", windows_expand_args=False)
    except OSError as error:  # of printing what came of it
        sys.exit(show_failure(error, stacktrace="--stacktrace" in sys.argv))
