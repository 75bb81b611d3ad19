"""mlwf publish and mlwf verify."""

import dataclasses
import json
from pathlib import Path
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mlwf.cli.support import json_option, stacktrace_option
from mlwf.errors import WrongUseError
from mlwf.i18n import _
from mlwf.publish import run
from mlwf.publish.access import ACCESSES, Access
from mlwf.publish.package import InvalidFormError
from mlwf.publish.place import parse_place
from mlwf.publish.verify import verify as verify_package
from mlwf.report import stderr
from mlwf.settings import environment

endpoint_option = click.option("--endpoint-url", metavar="URL", help=_("Address of the object store; MLFLOW_S3_ENDPOINT_URL by default."))


class Bar:
    """Bytes that move, as a progress bar on a terminal and in silence elsewhere; one line for each file."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def begins(self, what: str, size: int) -> None:
        self._task = self._progress.add_task(what, total=size or None)

    def moved(self, count: int) -> None:
        self._progress.advance(self._task, count)


@click.command(
    short_help=_("Put an exported package into a bucket, with a model card."),
    help=_(
        """Publish an exported package DIR under s3://BUCKET/PREFIX/: model.tar.gz, info.yaml and a model card (README.md).

    info.yaml is checked first, and the tarball against the SHA-256 of the export. The upload goes on where an interrupted one stopped;
    running it again changes nothing. Your own AWS credentials are used.

    \b
    Examples:
      mlwf publish MLWFExportModel_20260401120000 s3://models/wine/2/
      mlwf publish MLWFExportModel_20260401120000 s3://models/wine/2/ --acl public-read
    """
    ),
)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("url", metavar="s3://BUCKET/PREFIX/")
@click.option("--acl", type=click.Choice(ACCESSES), help=_("Who may read it; checked afterwards by a read without a key."))
@click.option("--by-policy", is_flag=True, help=_("Let everybody read the prefix through the bucket's policy, if the store has no ACLs."))
@click.option("--profile", metavar="NAME", help=_("Profile of ~/.aws/credentials that holds the keys."))
@endpoint_option
@click.option("--replace", is_flag=True, help=_("Replace another package that is already there."))
@click.option("--abort", is_flag=True, help=_("Only remove what interrupted uploads left in the bucket."))
@json_option
@stacktrace_option
def publish(
    folder: Path, url: str, acl: Access | None, profile: str | None, *, endpoint_url: str | None, as_json: bool, **more: bool
) -> None:
    if more["by_policy"] and acl not in {None, "public-read"}:
        raise WrongUseError(_("--by-policy makes it public, --acl {acl} does not").format(acl=acl), cure=_("Give one of them."))
    environ, console = environment(), stderr()
    place = parse_place(url, environ, endpoint_url, profile)
    wanted = run.Wanted(folder, place, profile=profile, access=acl, by_policy=more["by_policy"], replace=more["replace"])
    if more["abort"]:
        count = run.withdraw_parts(wanted, environ)
        if as_json:
            click.echo(json.dumps({"removed": count}))
            return
        console.print(_("{count} unfinished uploads were removed.").format(count=count), markup=False)
        return
    try:
        with Bar(console) as bar:
            done = run.publish(wanted, environ, bar)
    except InvalidFormError as error:
        for problem in error.problems:
            console.print(str(problem), markup=False)
        raise
    except KeyboardInterrupt:
        console.print(_("What was uploaded stays for the next run, which goes on from there; --abort removes it."), markup=False)
        raise
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done), ensure_ascii=False, indent=2))
        return
    _tell(done, console)
    click.echo(done.text)


def _tell(done: run.Published, console: Console) -> None:
    if done.uploaded:
        console.print(_("Uploaded: {names}").format(names=", ".join(done.uploaded)), markup=False)
    if done.unchanged:
        console.print(_("There already, unchanged: {names}").format(names=", ".join(done.unchanged)), markup=False)
    console.print(_("Everybody can read it.") if done.public else _("Only those with access to the bucket can read it."), markup=False)


@click.command(
    short_help=_("Check a published package: form, size, SHA-256, and that it is a model."),
    help=_(
        """Check a published package: its form, its size and SHA-256, and that the tarball is a model. No tracking server is asked.

    \b
    Examples:
      mlwf verify https://s3.example.org/models/wine/2/
      mlwf verify MLWFExportModel_20260401120000
    """
    ),
)
@click.argument("target", metavar="URL|DIR")
@endpoint_option
@json_option
@stacktrace_option
def verify(target: str, endpoint_url: str | None, *, as_json: bool) -> int:
    console = stderr()
    with Bar(console) as bar:
        found = verify_package(target, environment(), bar, endpoint_url=endpoint_url)
    told = [str(problem) for problem in found.problems]
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found.content) | {"problems": told}, ensure_ascii=False, indent=2))
    else:
        for line in told:
            console.print(line, markup=False)
        words = _("The package is whole: {files} files, {size} bytes, SHA-256 {digest}.")
        click.echo(words.format(files=found.content.files, size=found.content.size, digest=found.content.sha256))
    return int(bool(told))
