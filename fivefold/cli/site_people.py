"""`fivefold site people`: the site's register of people."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fivefold.cli.arguments import HERE, Where

if TYPE_CHECKING:
    from fivefold.governance.policy_keys import Role

app = typer.Typer(help="The site's register of people: roles, training, terms of use.", no_args_is_help=True)

KeyFile = Annotated[
    Path | None, typer.Option("--key", help="Who signs; keys/custodian.key of the site if left out.", metavar="FILE")
]
Public = Annotated[str, typer.Argument(help="The person's public key, 64 hex digits.", metavar="KEY", show_default=False)]
Until = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The last day.", metavar="DAY", show_default=False)]


class Granted(StrEnum):
    lead = "lead"
    reviewer = "reviewer"
    checker = "checker"
    auditor = "auditor"
    operator = "operator"


@app.command()
def grant(
    public_key: Public,
    name: Annotated[str, typer.Option(help="The person's name.", show_default=False)],
    role: Annotated[list[Granted], typer.Option(help="A role; once for each.", show_default=False)],
    until: Until,
    organisation: Annotated[str, typer.Option(help="Where the person works.")] = "",
    may_grant: Annotated[list[Granted] | None, typer.Option(help="A role that the person may grant on.")] = None,
    site: Where = HERE,
    key: KeyFile = None,
) -> None:
    """Give somebody a role until a day. Nobody grants more than they hold."""
    from fivefold.cli.keys import open_key
    from fivefold.governance import register
    from fivefold.site.folder import opened

    here, public = opened(site), public_key.strip().lower()
    roles: list[Role] = [r.value for r in role]
    on: list[Role] = [r.value for r in may_grant or ()]
    with here.act("role granted", person=name, key=public, roles=roles, may_grant=on, until=until.date().isoformat()):
        person = register.grant(
            here.path, here.custody(), open_key(key or here.keys / "custodian.key"),
            name=name, organisation=organisation, key=public, roles=roles, until=until.date(), may_grant=on,
        )  # fmt: skip
    typer.echo(f"{person.name}: {', '.join(f'{r} until {d}' for r, d in sorted(person.roles.items()))}")


@app.command()
def train(
    public_key: Public,
    course: Annotated[str, typer.Option(help="The course, as the policy names it.", show_default=False)],
    until: Until,
    certificate: Annotated[Path | None, typer.Option(help="The certificate; its digest is kept.", metavar="FILE")] = None,
    site: Where = HERE,
    key: KeyFile = None,
) -> None:
    """Certify somebody's training until a day. Nobody certifies their own."""
    import hashlib

    from fivefold.cli.keys import open_key
    from fivefold.governance import register
    from fivefold.site.folder import opened

    here, public = opened(site), public_key.strip().lower()
    seen = hashlib.sha256(certificate.read_bytes()).hexdigest() if certificate is not None else ""
    with here.act("training", key=public, course=course, until=until.date().isoformat(), certificate=seen):
        person = register.train(
            here.path, here.custody(), open_key(key or here.keys / "custodian.key"),
            key=public, course=course, until=until.date(), certificate=seen,
        )  # fmt: skip
    typer.echo(f"{person.name}: {course} until {person.training[course]}")


@app.command()
def accept(
    public_key: Public,
    terms: Annotated[str, typer.Option(help="The version of the terms of use.", show_default=False)],
    until: Until,
    site: Where = HERE,
    key: KeyFile = None,
) -> None:
    """Write down that somebody accepted the terms of use; signed by their own key, or by who holds the paper."""
    from fivefold.cli.keys import open_key
    from fivefold.governance import register
    from fivefold.site.folder import opened

    here, public = opened(site), public_key.strip().lower()
    with here.act("terms of use accepted", key=public, terms=terms, until=until.date().isoformat()):
        signer = open_key(key or here.keys / "custodian.key")
        person = register.accept(here.path, here.custody(), signer, key=public, terms=terms, until=until.date())
    typer.echo(f"{person.name}: terms of use {terms} until {person.terms[terms]}")


@app.command("list")
def listed(site: Where = HERE, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Everybody in the register: roles, training, terms of use, and what has ended."""
    import json
    from dataclasses import asdict
    from datetime import UTC

    from fivefold.governance.register import lines, register_of
    from fivefold.site.folder import opened

    here, today = opened(site), datetime.now(UTC).date()
    found = register_of(here.path, here.custody(), today)
    if as_json:
        values = {"people": [asdict(p) for p in found.people.values()], "revoked": sorted(found.revoked), "head": found.head}
        typer.echo(json.dumps(values, ensure_ascii=False, indent=2, default=str))
        return
    for line in lines(found, today):
        typer.echo(line)
    typer.echo(
        f"{len(found.people)} people, {found.entries} signed statements" + (f", head {found.head}" if found.head else "")
    )


@app.command()
def revoke(
    public_key: Public,
    reason: Annotated[str, typer.Option(help="Why, for the record.", show_default=False)],
    site: Where = HERE,
    key: KeyFile = None,
) -> None:
    """Take every role from somebody at once. What they granted to others is void from now on."""
    from fivefold.cli.keys import open_key
    from fivefold.governance.register import dismiss
    from fivefold.site.folder import opened

    here, public = opened(site), public_key.strip().lower()
    with here.act("roles revoked", key=public, reason=reason):
        dismiss(here.path, here.custody(), open_key(key or here.keys / "custodian.key"), key=public, reason=reason)
    typer.echo("revoked: this key holds no role here any more")
