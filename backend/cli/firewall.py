"""`firewall`: the rules around the containers' networks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from backend.cli.context import settings_of
from backend.cli.language import _

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from backend.networks.layout import Target


@click.command(
    help=_(
        """Print the rules (nftables) for what the servers' containers may reach, with the names of the allow-list as they resolve now.

    Run it with --ensure before Docker starts, and with --apply from a timer: names are looked up again each time. If an entry has no
    address, nothing is changed and the exit status is 1; if no rules are in force yet, they are put in force without that entry.
    """
    )
)
@click.option("--apply", is_flag=True, help=_("Check the rules, then put them in force in one step. Needs root and nft."))
@click.option(
    "--ensure",
    is_flag=True,
    help=_("Like --apply, but if an entry has no address and rules are already in force, leave those and exit with status 0."),
)
@click.option("--remove", is_flag=True, help=_("Remove the rules that are in force."))
@click.pass_context
def firewall(context: click.Context, *, apply: bool, ensure: bool, remove: bool) -> None:
    from backend.cli.failures import CommandError
    from backend.networks import layout
    from backend.networks.firewall import earlier_answers, is_in_force, tells_bridges

    settings = settings_of(context)
    name = layout.install_id(settings.state_dir)
    table = layout.table_name(name)
    if remove:
        _nft(layout.removal(table))
        if is_in_force(layout.bridge_table_name(name)):  # a kernel may have no rules for bridges
            _nft(layout.removal(layout.bridge_table_name(name)))
        return
    by_bridge = not (apply or ensure) or tells_bridges()
    between = layout.bridge_ruleset(name, () if by_bridge else (settings.gate_network, settings.mlflow_network))
    found, failures = _look_up(layout.allow_list(settings))
    if failures and (not (apply or ensure) or is_in_force(table)):
        if apply or ensure:  # it has no names; an earlier version's rules are without it
            _keep_apart(between)
        if not ensure:
            raise CommandError(failures[0])
        for failure in failures:  # Docker, which this start was asked for, is not to stay away because of a name
            click.echo(_("{failure}; until then the rules in force stay", failure=failure), err=True)
        return
    allowed = {target for targets in found.values() for target in targets}
    answers = layout.answers(found, earlier_answers(name) if apply or ensure else ())
    rules = layout.ruleset(name, allowed, layout.resolvers(settings), answers)
    if not (apply or ensure):
        click.echo(rules + between, nl=False)
        return
    _nft(rules, "--check")
    _nft(rules)
    _keep_apart(between)
    for failure in failures:  # none were in force: the containers are closed rather than open
        click.echo(_("{failure}; until then it is closed to the containers", failure=failure), err=True)
    click.echo(_("table {table}: {count} addresses allowed", table=table, count=len(allowed)))


def _look_up(entries: Iterable[str]) -> tuple[dict[str, list[Target]], list[str]]:
    """What is allowed by each entry, and why others allow nothing."""
    from backend.networks import layout

    found: dict[str, list[Target]] = {}
    failures = []
    for entry in entries:
        try:
            found[entry] = list(layout.targets([entry]))
        except layout.EntryError as error:
            failures.append(str(error))
    return found, failures


def _keep_apart(rules: str) -> None:
    """What stays on a bridge. Without it the servers still have the other table: where the kernel knows no such rules, that is told."""
    from backend.networks.firewall import nft

    done = nft("-f", "-", rules=rules)
    if done.returncode:
        told = _(
            "nft refuses the rules for traffic within a bridge ({why}), so servers' containers are kept apart only if the host has "
            "bridge-nf-call-iptables at 1; set that, or boot a kernel with CONFIG_NF_TABLES_BRIDGE",
            why=_why(done),
        )
        click.echo(told, err=True)


def _why(done: CompletedProcess[str]) -> str:
    return next(iter(done.stderr.strip().splitlines()), f"exit status {done.returncode}")  # killed, it says nothing


def _nft(rules: str, *options: str) -> None:
    from backend.cli.failures import CommandError
    from backend.networks.firewall import nft

    done = nft(*options, "-f", "-", rules=rules)
    if done.returncode:
        why = _why(done)
        if os.geteuid():
            raise CommandError(_("nft refuses the rules, and nothing was changed ({why}); run it as root", why=why))
        raise CommandError(
            _("nft refuses the rules, and nothing was changed ({why}); `aihub firewall` shows them: correct egress or resolvers", why=why)
        )
