"""`fivefold site review`, `refuse`, `counter`, `close`, `life`: a custodian's other answers, and where a study stands here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fivefold.cli.arguments import HERE, KeyFile, StudyFile, Where

if TYPE_CHECKING:
    from fivefold.governance.safe_projects import Verdict
    from fivefold.site.folder import SiteFolder
    from fivefold.study.digest import SignedStudy

Why = Annotated[str, typer.Option(help="Why; the lead and the auditors read it.", show_default=False)]


def review(
    study: StudyFile,
    site: Where = HERE,
    key: Annotated[
        Path | None, typer.Option("--key", help="A reviewer's key, to sign a word on the study.", metavar="FILE")
    ] = None,
    object_: Annotated[bool, typer.Option("--object", help="Object: the study is not admitted while you do.")] = False,
    why: Annotated[str, typer.Option(help="Why; an objection needs it.")] = "",
) -> None:
    """Take a study up, so that the log says it is under review; with --key, sign your word on it as a reviewer.

    Where the policy asks for reviews, an approval counts only with as many as it asks for. Nobody reviews their own study.
    """
    from fivefold.site.folder import opened
    from fivefold.site.life import life_of

    if key is None and (object_ or why):
        raise typer.BadParameter("a reviewer's word is signed: name the key with --key")
    here = opened(site)
    found = taken_up(study, site)
    if key is not None:
        typer.echo(_word(here, found, key, "objects" if object_ else "supports", why))
    typer.echo(f"{found.study.title}: {life_of(here, found).state} at {here.name()}")
    typer.echo("Next: fivefold site approve, refuse or counter")


def refuse(study: StudyFile, why: Why, site: Where = HERE, key: KeyFile = None) -> None:
    """Refuse a study, with a reason. A later approval is possible."""
    from fivefold.cli.keys import open_key
    from fivefold.site.folder import opened
    from fivefold.site.life import refuse as say_no

    here, found = opened(site), taken_up(study, site)
    say_no(here, found.digest, open_key(key or here.keys / "custodian.key"), why=why)
    typer.echo("refused: this site answers nothing for the study")


def counter(
    study: StudyFile,
    why: Why,
    site: Where = HERE,
    key: KeyFile = None,
    without: Annotated[
        list[str] | None, typer.Option(help="A variable to leave out, again and again.", metavar="VARIABLE")
    ] = None,
    without_analysis: Annotated[
        list[str] | None, typer.Option(help="An analysis in which this site does not take part.", metavar="NAME")
    ] = None,
    noise: Annotated[float | None, typer.Option(help="The least noise multiplier.", min=0.0, show_default=False)] = None,
    rounds: Annotated[int | None, typer.Option(help="The most rounds of a method.", min=1, show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file for the lead; SITE.counter.json by default.", metavar="FILE")
    ] = None,
) -> None:
    """Answer with what this site would do instead. It changes nothing until the lead makes a new version."""
    from fivefold.cli.keys import open_key
    from fivefold.governance.answers import Wanted
    from fivefold.records.files import write_named
    from fivefold.site.folder import opened
    from fivefold.site.life import counter as propose_otherwise

    here, found = opened(site), taken_up(study, site)
    wanted = Wanted(tuple(without or ()), tuple(without_analysis or ()), noise, rounds)
    custodian = open_key(key or here.keys / "custodian.key")
    made = propose_otherwise(here, found.study, found.digest, custodian, wanted, why=why)
    target = out or Path(f"{here.name()}.counter.json")
    write_named(target, made)
    typer.echo(f"wrote {target}: send it to the lead\n" + "\n".join(f"  {line}" for line in wanted.words()))


def close(study: StudyFile, site: Where = HERE, reason: Annotated[str, typer.Option(help="Why.")] = "the study ended") -> None:
    """End a study here for good: its snapshot is destroyed, and the log says so."""
    from fivefold.site.folder import opened
    from fivefold.site.life import end
    from fivefold.study.digest import load_signed

    here = opened(site)
    with here.act("closing asked"):
        gone = end(here, load_signed(study).digest, why=reason)
    typer.echo("the snapshot is destroyed" if gone else "there was no snapshot of this study")


def recall(
    file: Annotated[Path, typer.Argument(help="The notice of a recall.", metavar="FILE", show_default=False)],
    study: StudyFile,
    site: Where = HERE,
) -> None:
    """Enter the recall of a release: an incident in this site's log and ledger."""
    from fivefold.site.folder import opened
    from fivefold.site.release_ledger import recall as enter
    from fivefold.study.digest import load_signed, read_bytes

    said = enter(opened(site), load_signed(study), read_bytes(file))
    typer.echo(said.words)


def life(
    study: StudyFile, site: Where = HERE, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Draw a study's life at this site: every act with who, when, why and on which digest."""
    from fivefold.cli.life_table import draw, plain
    from fivefold.site.folder import opened
    from fivefold.site.life import life_of
    from fivefold.study.digest import load_signed

    found = life_of(opened(site), load_signed(study))
    if as_json:
        import json

        typer.echo(json.dumps(plain(found), indent=1, ensure_ascii=False))
        return
    draw({found.site: found})


def taken_up(study: Path, site: Path) -> SignedStudy:
    """The signed study, its review logged, the lead's proposal beside it kept."""
    from fivefold.governance.proposals import found_beside
    from fivefold.site.folder import opened
    from fivefold.site.life import reviewed
    from fivefold.study.digest import load_signed

    here = opened(site)
    with here.act("review asked"):
        found = load_signed(study)
        reviewed(here, found, found_beside(study, found))
    return found


def _word(here: SiteFolder, found: SignedStudy, key: Path, verdict: Verdict, why: str) -> str:
    """Sign a reviewer's word, and say whose it was."""
    from fivefold.cli.keys import open_key
    from fivefold.governance.safe_projects import review as sign

    with here.act("review signed", study=found.digest, verdict=verdict):
        said = sign(here.path, here.custody(), found.study, found.digest, open_key(key), verdict=verdict, reason=why)
    who = f"{said.name}, {said.organisation}," if said.organisation else said.name
    return f"{who} {said.verdict} the study {found.digest[:16]}…"
