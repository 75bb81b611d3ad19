"""`firewall`: the rules around the containers' networks."""

from __future__ import annotations

import subprocess

import click

from backend.cli.context import settings_of


@click.command()
@click.option("--apply", "install", is_flag=True, help="Check the rules, then put them in force in one step. Needs root and nft.")
@click.option("--remove", is_flag=True, help="Take them out of force.")
@click.pass_context
def firewall(context: click.Context, *, install: bool, remove: bool) -> None:
    """What the servers' containers may reach: prints the rules (nftables), with the names of the allow-list as they resolve now.

    Run it with --apply at boot before Docker, and from a timer: names are looked up anew each time. Where one has no address, nothing is
    changed and the exit status is 1.
    """
    from backend import networks
    from backend.cli.failures import CommandError
    from backend.runtimes.containers import install_id

    settings = settings_of(context)
    name = install_id(settings.state_dir)
    if remove:
        _nft(f"table inet aihub_{name} {{}}\ndelete table inet aihub_{name}\n")
        return
    try:
        allowed = list(networks.targets(networks.allow_list(settings)))
    except networks.EntryError as error:
        raise CommandError(str(error)) from error
    rules = networks.ruleset(name, allowed, networks.resolvers(settings))
    if install:
        _nft(rules, "--check")
        _nft(rules)
        click.echo(f"table inet aihub_{name}: {len(set(allowed))} addresses allowed")
    else:
        click.echo(rules, nl=False)


def _nft(rules: str, *options: str) -> None:
    from backend.cli.failures import CommandError

    try:
        done = subprocess.run(["nft", *options, "-f", "-"], input=rules, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise CommandError("there is no nft; install nftables (Debian: apt-get install nftables)") from None
    if done.returncode:
        raise CommandError(f"nft refuses the rules, and nothing was changed ({done.stderr.strip().splitlines()[0]}); run it as root")
