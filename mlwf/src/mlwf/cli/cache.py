"""`mlwf cache`: how much the cache of mlwf_create_image holds, and making it smaller."""

import json
from collections import defaultdict
from collections.abc import Sequence

import click
from rich.text import Text

from mlwf.cli.output import console, print_table, table_of
from mlwf.cli.support import Amount, json_option, stacktrace_option
from mlwf.i18n import _
from mlwf.image.cache import Cache
from mlwf.image.cache_space import Entry, entries, fault_of_layer, leases, prune
from mlwf.settings import environment

GB = 1e9


@click.group(
    help=_(
        "The cache of mlwf_create_image. It holds bases, images, model packages, wheels and locks; each user has one (folder: MLWF_CACHE)."
    )
)
def cache() -> None:
    pass


@cache.command(help=_("How much is in it, by kind, and in how many files."))
@json_option
@stacktrace_option
def info(*, as_json: bool) -> None:
    opened = Cache.open(environment())
    kinds: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries(opened):
        kinds[entry.kind].append(entry)
    together = _count([entry for kind in kinds.values() for entry in kind])
    shared = {str(layer): fault_of_layer(layer) for layer in opened.layers}
    if as_json:
        told = {kind: {"entries": len(found), **_count(found)} for kind, found in kinds.items()}
        closed = {layer: fault for layer, fault in shared.items() if fault}
        own = {"folder": str(opened.root), **together, "kinds": told, "jobs": leases(opened)}
        click.echo(json.dumps({**own, "shared": list(shared), "unreadable": closed}))
        return
    table = table_of(_("kind"), _("entries"), _("files"), "GB")
    for column in table.columns[1:]:
        column.justify = "right"
    for kind, found in sorted(kinds.items(), key=lambda each: -_count(each[1])["bytes"]):
        count = _count(found)
        table.add_row(kind, str(len(found)), str(count["files"]), f"{count['bytes'] / GB:.2f}")
    out = console()
    out.print(Text(str(opened.root), "bold"))
    print_table(table, out)
    said = _("In all {size:.2f} GB in {files} files; jobs using it now: {jobs}")
    out.print(said.format(size=together["bytes"] / GB, files=together["files"], jobs=leases(opened)), markup=False)
    for layer, fault in shared.items():
        unread = _(
            "Shared, but you cannot read it: {why}. Its owner can open bases, images and locks to everybody with 'chmod -R go-w,a+rX'."
        )
        said = unread.format(why=fault) if fault else _("Shared, read-only: {folder}").format(folder=layer)
        out.print(said, markup=False)


def _count(found: Sequence[Entry]) -> dict[str, int]:
    return {"bytes": sum(entry.size for entry in found), "files": sum(entry.files for entry in found)}


@cache.command(
    "prune",
    help=_("Remove what was not used for longest. At most --max-gb gigabytes are left; what was used within the last hour stays."),
)
@click.option("--max-gb", type=Amount(min=0), metavar="GB", help=_("How many gigabytes may be left."))
@click.option("--all", "everything", is_flag=True, help=_("Remove all that was not used within the last hour."))
@json_option
@stacktrace_option
def prune_command(*, max_gb: float | None, everything: bool, as_json: bool) -> None:
    if (max_gb is None) != everything:
        raise click.UsageError(_("Give either --max-gb or --all."))
    done = prune(Cache.open(environment()), int((max_gb or 0) * GB))
    if as_json:
        click.echo(json.dumps({"removed": done.removed, "freed": done.freed, "bytes": done.left, "in_use": done.in_use}))
        return
    out = console()
    out.print(
        _("{count} entries removed, {freed:.2f} GB freed, {left:.2f} GB left.").format(
            count=done.removed, freed=done.freed / GB, left=done.left / GB
        ),
        markup=False,
    )
    if done.in_use:
        out.print(_("{size:.2f} GB were used within the last hour and stay.").format(size=done.in_use / GB), markup=False)
