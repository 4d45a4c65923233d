"""`fivefold site data`: the record of the rows that lie frozen at a site."""

from __future__ import annotations

from typing import Annotated

import typer

from fivefold.cli.arguments import HERE, Where


def data(
    folder: Where = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Which rows lie frozen here, for which study, since when and until when, and which were destroyed.

    Log and disk are compared: exit code 25 where rows lie here of which the log does not tell, or are not where they should.
    """
    import json
    from dataclasses import asdict

    from fivefold.cli.site_page import plain
    from fivefold.errors import SnapshotProblem
    from fivefold.site.folder import opened
    from fivefold.site.held import AMISS, held

    here = opened(folder)
    found = held(here)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
    else:
        policy = here.policy()
        typer.echo(f"asset {policy.asset}" + (f", tier {policy.tier}" if policy.tier is not None else ""))
        for one in found:
            until = "" if one.destroyed else one.until
            said = (("frozen", one.frozen[:10]), ("destroyed", one.destroyed[:10]), ("approved until", until))
            days = [f"{what} {day}" for what, day in said if day]
            name = f"{one.title or 'not approved'} ({one.study[:16]}…)"
            days += [f"asset {one.asset}"] if one.asset not in ("", policy.asset) else []
            typer.echo(plain(f"{'✗' if one.state in AMISS else ' '} {one.state}: {'; '.join([name, *days])}"))
        kept = sum(one.state == "held" for one in found)
        typer.echo(f"{kept} snapshot{'' if kept == 1 else 's'} held, {len(found)} in the record")
    if any(one.state in AMISS for one in found):
        raise typer.Exit(SnapshotProblem.exit_code)
