"""`fivefold site withdraw` and `fivefold site notice`: a site leaves a study, and its peers hear of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fivefold.cli.arguments import HERE, Where

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fivefold.site.withdrawal import Out


def withdraw(
    study: Annotated[str, typer.Argument(help="The signed study, or its digest.", metavar="STUDY", show_default=False)],
    site: Where = HERE,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="The custodian's key; keys/custodian.key of the site if left out.", metavar="FILE"),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record; the other sites and the lead read it.")] = "",
    wish: Annotated[
        list[str] | None,
        typer.Option(
            help="What is to become of what is out: totals=…, models=…, releases=… keep, retrain or destroy.", metavar="X=Y"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the notice for the others; none is written if left out.", metavar="FILE")
    ] = None,
) -> None:
    """Withdraw the approval of a study, by a signed statement. The site answers nothing more for it, at once."""
    from fivefold.cli.keys import open_key
    from fivefold.records.files import write_named
    from fivefold.site import withdrawal
    from fivefold.site.folder import opened
    from fivefold.study.digest import load_signed

    here = opened(site)
    digest = study if len(study) == 64 and not Path(study).exists() else load_signed(Path(study)).digest
    wishes = {thing: what for thing, _, what in (w.partition("=") for w in wish or ())}
    done = withdrawal.withdraw(
        here, digest, open_key(key or here.keys / "custodian.key"), reason=reason, wishes=_asked(wishes, here, digest)
    )
    typer.echo("withdrawn: this site answers nothing more for the study")
    _say(done.out, done.wishes)
    if out is not None:  # last: what is wrong with the file stops no withdrawal, and the same command with another writes it
        write_named(out, done.notice)


def _asked(wishes: dict[str, str], here: object, digest: str) -> dict[str, str]:
    """What was not said on the command line is asked, where somebody sits there."""
    import sys

    import click

    from fivefold.governance.withdrawals import WISHES
    from fivefold.site.folder import SiteFolder
    from fivefold.site.withdrawal import out_of

    assert isinstance(here, SiteFolder)
    if not sys.stdin.isatty():
        return wishes
    for thing, words in out_of(here, digest).things.items():
        if thing not in wishes:
            wishes[thing] = typer.prompt(words, default="keep", type=click.Choice(WISHES))
    return wishes


def _say(out: Out, wishes: Mapping[str, str]) -> None:
    for thing, words in out.things.items():
        typer.echo(f"  cannot be undone: {words}; your wish: {wishes.get(thing, 'keep')}")
    if out.things:
        typer.echo("  another wish: the same command again, with --wish THING=keep, retrain or destroy")
    for run, round in out.in_flight:
        typer.echo(f"  run {run}, round {round}: this site's masked answer is out; the others may still open its sum")


def notice(
    file: Annotated[Path, typer.Argument(help="The notice of a site that withdrew.", metavar="FILE", show_default=False)],
    study: Annotated[Path, typer.Argument(help="The signed study.", metavar="STUDY", show_default=False)],
    site: Where = HERE,
) -> None:
    """Keep another site's notice that it withdrew: no sum with that site in it is opened here any more."""
    from fivefold.governance.withdrawals import keep_notice, read_notice
    from fivefold.replay.roster import roster_of
    from fivefold.site.folder import opened
    from fivefold.study.digest import load_signed, read_bytes

    here, found = opened(site), load_signed(study)
    said = read_notice(read_bytes(file), found.digest, roster_of(found.study))
    with here.act("notice", study=found.digest, site=said.site, statement=said.statement):
        keep_notice(here.state, said)
    wishes = "; ".join(f"{thing}: {what}" for thing, what in said.wishes.items()) or "nothing was out"
    typer.echo(f"{said.site} withdrew on {said.at[:10]} ({said.reason or 'no reason given'}); its wishes: {wishes}")
