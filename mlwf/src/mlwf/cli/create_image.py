"""mlwf_create_image: a Singularity image that serves a model, from its package and a base image."""

import json
import os
import sys
from pathlib import Path

import click
from rich.console import Console

from mlwf.cli.image_progress import TerminalReporter
from mlwf.ending import Terminated, end, raise_on_terminate
from mlwf.i18n import _
from mlwf.image.create import IMAGE, Created, create
from mlwf.image.plan import Wanted
from mlwf.image.proof import ANSWERED, LOADED, NEEDS_GPU, Verdict
from mlwf.image.tool import COMPRESSIONS
from mlwf.report import show_failure, stderr
from mlwf.settings import environment
from mlwf.streams import print_anything

HELP = _(
    """Create a Singularity image for a model: MLWFCreateImage_YYYYMMDDhhmmss/ with container.simg, Dockerfile, Singularity and model/.

    The image holds the base image, the exact Python and every package that the model recorded; it is tested with the model's own
    input example before it is handed over. What was fetched and built is kept (MLWF_CACHE), so that the next image is quick.

    \b
    Examples:
      mlwf_create_image --model-pkg-url s3://bucket/wine/model.tar.gz --base-container-url docker://python:3.11.7-slim
      mlwf_create_image --model-pkg-url MLWFExportModel_20261124101500 --base-container-url docker-archive:base.tar
    """
)


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--model-pkg-url",
    "package",
    required=True,
    metavar="URL",
    help=_("The model package: s3://…, https://…, a model.tar.gz, a folder of mlwf_export_model, models:/NAME/VERSION or …@ALIAS."),
)
@click.option("--model-pkg-sha256", "checksum", default="", metavar="HEX", help=_("The archive's SHA-256, which it must have."))
@click.option(
    "--base-container-url",
    "base",
    required=True,
    metavar="URL",
    help=_(
        "The base image: docker://…, docker-archive:FILE, oci:FOLDER:TAG, oci-archive:FILE, docker-daemon:NAME:TAG, "
        "library://…, oras://…, or a SIF."
    ),
)
@click.option(
    "--output-dir",
    "output",
    metavar="DIRECTORY",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help=_("Where to make the folder; here by default."),
)
@click.option(
    "--tmpdir",
    metavar="DIRECTORY",
    type=click.Path(file_okay=False, exists=True, resolve_path=True, path_type=Path),
    help=_("Where a base image is unpacked; a local disk with up to five times the size of its packed layers."),
)
@click.option("--no-test", is_flag=True, help=_("Hand the image over without testing the model in it."))
@click.option("--offline", is_flag=True, help=_("Use only what is in the cache; say at once what is missing."))
@click.option("--fetch-only", is_flag=True, help=_("Only fill the cache (on a node with internet), for --offline in a job."))
@click.option("--relock", is_flag=True, help=_("Resolve the packages again, although there is a lock for them."))
@click.option(
    "--allow-python-minor", is_flag=True, help=_("Use another patch version of the same Python if the exact one is not available.")
)
@click.option("--allow-source-builds", is_flag=True, help=_("Also packages without a wheel: their build runs their own code."))
@click.option("--allow-indexes", is_flag=True, help=_("Also from package indexes that the model names (--extra-index-url and the like)."))
@click.option("--allow-urls", is_flag=True, help=_("Also packages at https addresses that the model names (NAME @ https://…)."))
@click.option("--python-mirror", default="", metavar="URL", help=_("Where uv fetches Python; UV_PYTHON_INSTALL_MIRROR by default."))
@click.option(
    "--compression",
    type=click.Choice(COMPRESSIONS),
    help=_(
        "How the image is packed; by default in the way that this machine's container tool reads best. gzip: for every Apptainer "
        "and Singularity."
    ),
)
@click.option("--copy", is_flag=True, help=_("Make container.simg a copy where it would be a hard link into the cache."))
@click.option("--no-https", is_flag=True, help=_("The registry of the base image speaks plain HTTP."))
@click.option("--json", "as_json", is_flag=True, help=_("The result as JSON on stdout, the steps as JSON lines on stderr."))
@click.option("--stacktrace", is_flag=True, help=_("Add the traceback to an error message."))
@click.version_option(package_name="mlwf")
def command(*, package: str, base: str, no_test: bool, no_https: bool, as_json: bool, stacktrace: bool, **options: object) -> None:
    if options["offline"] and options["fetch_only"]:
        raise click.UsageError(_("Give either --offline or --fetch-only."))
    raise_on_terminate()
    # A site's cache that its group or everybody may write is believed by nobody, and may not be: RHEL's own users have the umask 002.
    os.umask(os.umask(0o077) | 0o022)
    console = stderr()
    wanted = Wanted(package_url=package, base_url=base, test=not no_test, http_registry=no_https, **options)  # type: ignore[arg-type]
    try:
        with TerminalReporter(console, as_json=as_json) as reporter:
            created = create(wanted, environment(), reporter)
    except KeyboardInterrupt:
        end(130, _("Interrupted; nothing was kept."), console, as_json=as_json)
    except Terminated as ended:
        end(143, str(ended), console, as_json=as_json)
    except Exception as error:  # noqa: BLE001  # the last frame: every failure becomes one sentence and a status
        sys.exit(show_failure(error, stacktrace=stacktrace, as_json=as_json))
    _summary(created, console, as_json=as_json)


def _summary(created: Created, console: Console, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_as_json(created)))
        return
    if created.folder is None:
        console.print(_("All is in the cache: run the same command with --offline in the job."), markup=False)
        return
    if created.cached:
        console.print(_("The image was in the cache."), markup=False)
    console.print(_told(created.verdict), markup=False)
    console.print(
        _("{image}: {size:.1f} MB, Python {python}, built in {seconds:.1f} s").format(
            image=IMAGE,
            size=created.size / 1e6,
            python=created.python,
            seconds=sum(created.seconds.values()) - created.seconds.get("proof", 0),
        ),
        markup=False,
    )
    click.echo(str(created.folder))


def _told(verdict: Verdict | None) -> str:
    if verdict is None:
        return _("The model was not tested in the image (--no-test).")
    if verdict.state == ANSWERED and verdict.compared:
        return _("Tested: the model answers its input example as recorded.")
    return {
        ANSWERED: _("Tested: the model answers its input example."),
        LOADED: _("Tested: the model loads; it has no input example to try."),
        NEEDS_GPU: _(
            "Not tested: the model needs an NVIDIA GPU, and this job has none. Run the same command on a node with one to test it."
        ),
    }[verdict.state]


def _as_json(created: Created) -> dict[str, object]:
    return {
        "folder": str(created.folder.resolve()) if created.folder else None,
        "image": str(created.folder.resolve() / IMAGE) if created.folder else None,
        "key": created.key,
        "bytes": created.size,
        "cached": created.cached,
        "python": created.python,
        "proof": created.verdict.as_json() if created.verdict else None,
        "seconds": created.seconds,
    }


def main() -> None:
    print_anything()
    try:
        command(prog_name="mlwf_create_image", windows_expand_args=False)
    except OSError as error:  # of printing what came of it
        sys.exit(show_failure(error, stacktrace="--stacktrace" in sys.argv))
