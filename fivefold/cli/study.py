"""`fivefold study`: write, check, show, estimate, freeze, sign, verify and vary a study."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fivefold.cli.study_life import close, counter, life, listed
from fivefold.errors import KeyProblem, SignatureWrong, StudyAltered, StudyInvalid, StudyNotFound

if TYPE_CHECKING:
    from fivefold.governance.study_check import Checked
    from fivefold.governance.study_estimate import Estimate
    from fivefold.study.definition import Study
    from fivefold.study.digest import SignedStudy
    from fivefold.study.yaml import Located

app = typer.Typer(help="Write, check, freeze and sign a study file.", no_args_is_help=True, add_completion=False)
app.command("list")(listed)
app.command()(life)
app.command()(counter)
app.command()(close)

StudyPath = Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY", show_default=False)]
KeyPath = Annotated[Path, typer.Option("--key", help="The lead's key file.", metavar="FILE", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where to write.", metavar="FILE", show_default=False)]
Replace = Annotated[bool, typer.Option("--replace", help="Replace a file that says something else.")]


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(help="Folder to write into.", metavar="FOLDER")] = Path("."),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take the default of every question.")] = False,
    answers: Annotated[
        Path | None, typer.Option(help="A YAML file of answers; what it leaves out is taken by default.")
    ] = None,
) -> None:
    """Ask a few questions, and write study.yaml with its dictionary."""
    from fivefold.records.files import write_file
    from fivefold.study import lines
    from fivefold.study.new import answers_of, questions, skeleton

    today, given = date.today(), dict[str, Any]()
    if answers is not None:
        if not answers.is_file():
            raise StudyNotFound(f"there is no file {answers}", help="Write lines such as `title: My study` into it.")
        read = lines.read(answers, invalid=StudyInvalid, missing=StudyInvalid).data
        if not isinstance(read, dict):
            raise StudyInvalid(f"{answers} holds no answers", help="Write lines such as `title: My study`.")
        given = read
    elif not yes:
        given = {q.key: typer.prompt(q.text, default=q.default, show_default=bool(q.default)) for q in questions(today)}
    files = skeleton(answers_of(given, today))
    taken = [name for name in files if (folder / name).exists()]
    if taken:
        raise StudyInvalid(f"{folder / taken[0]} exists already, and is not overwritten", help="Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_file(folder / name, text.encode())
    typer.echo(f"Written: {' and '.join(str(folder / n) for n in files)}")
    typer.echo(f"Next: edit both, then `fivefold study check {folder / 'study.yaml'}`.")


@app.command()
def check(
    study: StudyPath,
    ready: Annotated[bool, typer.Option("--ready", help="What is still open before freezing counts as a fault.")] = False,
    as_json: AsJson = False,
) -> None:
    """Name every fault with its line and what to write instead."""
    from fivefold.governance import study_check

    checked = study_check.check(study)
    wrong = bool(checked.faults) or (ready and bool(checked.open))
    if as_json:
        _json(_check_json(checked, wrong))
    else:
        for title, found in (("faults", checked.faults), ("still open", checked.open), ("notes", checked.notes)):
            _list(title, found)
        if not wrong and checked.reading.study is not None:
            _promise(checked.reading.study)
            _safes(checked.reading.study)
            typer.echo(f"{study} is {'complete but for what is still open' if checked.open else 'in order'}.")
    if wrong:
        raise typer.Exit(StudyInvalid.exit_code)


@app.command()
def show(study: StudyPath, as_json: AsJson = False) -> None:
    """Print the study as a page to read: a study file, a frozen or a signed one."""
    from fivefold.cli.study_page import page
    from fivefold.study.digest import digest
    from fivefold.study.document import document

    value = _opened(study)
    if as_json:
        _json(document(value) | {"digest": digest(value)})
    else:
        typer.echo(page(value, digest(value)))


@app.command()
def estimate(
    study: StudyPath,
    trip_seconds: Annotated[
        float, typer.Option(min=0, help="Time of one trip between site and coordinator, in seconds.")
    ] = 0.2,
    megabits: Annotated[float, typer.Option(min=0.001, help="Speed of a site's line, in megabits a second.")] = 8.0,
    plot: Annotated[
        Path | None, typer.Option(help="Draw ε against rounds and noise into an .svg or .png file.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bound rounds, traffic, time and ε; say which drop-outs and colluders the sums withstand."""
    from fivefold.cli.study_page import estimate_page
    from fivefold.governance.study_estimate import estimate as bound

    bounded = bound(_opened(study), trip_seconds=trip_seconds, bytes_per_second=megabits * 125_000)
    if as_json:
        _json(bounded.as_json())
    else:
        typer.echo(estimate_page(bounded))
    if plot is not None:
        _plot(bounded, plot)


@app.command()
def threats(study: StudyPath, as_json: AsJson = False) -> None:
    """Say, threat by threat, which protection of the study covers it, what is left open, and what to change."""
    from fivefold.governance import threats as guide

    value = _opened(study)
    if as_json:
        _json(guide.as_json(value))
        return
    from fivefold.cli.study_page import threats_page

    typer.echo(threats_page(guide.threats(value)))


@app.command()
def freeze(study: StudyPath, out: Out = None, replace: Replace = False, as_json: AsJson = False) -> None:
    """Write the canonical form (RFC 8785), dictionary included; its SHA-256 is the study's digest."""
    from fivefold.study.digest import canonical, digest

    frozen = _ready(study)
    target = out or study.with_name(f"{_stem(study)}.frozen.json")
    _keep(target, canonical(frozen), replace)
    _done(target, digest(frozen), as_json)


@app.command()
def sign(study: StudyPath, key: KeyPath, out: Out = None, replace: Replace = False, as_json: AsJson = False) -> None:
    """Sign with the lead's key; the signed file is what travels to the sites."""
    from fivefold.cli.keys import open_key
    from fivefold.study.digest import digest, sign_study

    frozen = _ready(study)
    beside = study.with_name(f"{_stem(study)}.frozen.json")
    if beside.exists() and beside != study and digest(_opened(beside)) != digest(frozen):
        raise StudyAltered(
            f"{study.name} was changed after it was frozen", help="Freeze it again: `fivefold study freeze --replace`."
        )
    signed = sign_study(frozen, open_key(key))
    target = out or study.with_name(f"{_stem(study)}.signed.json")
    _keep(target, signed.to_bytes(), replace)
    _propose(target, signed, open_key(key))
    _done(target, signed.digest, as_json)


@app.command()
def verify(
    study: StudyPath,
    lead: Annotated[
        str | None, typer.Option(help="The lead's fingerprint or public key, as you know it.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify a signed study: its form, its digest, and the signature of the lead."""
    from fivefold.auth.keys import fingerprint, public_from_hex
    from fivefold.study.digest import load_signed

    signed = load_signed(study)
    public = public_from_hex(signed.study.lead.public_key)
    if lead is not None and lead.replace(" ", "").lower() not in (fingerprint(public).replace(" ", ""), public.hex()):
        raise SignatureWrong("the study is signed by another key than the one you know as the lead's", rule="lead_key")
    facts = {
        "title": signed.study.title,
        "lead": signed.study.lead.name,
        "fingerprint": fingerprint(public),
        "digest": signed.digest,
    }
    if as_json:
        _json({"verified": True} | facts)
        return
    typer.echo(f"{study} is signed by {facts['lead']} and was not changed since.")
    typer.echo(f"fingerprint of the lead's key  {facts['fingerprint']}   (compare it over a telephone)")
    typer.echo(f"digest of the study            {facts['digest']}")


@app.command()
def vary(
    study: StudyPath,
    analysis: Annotated[str, typer.Option(help="The analysis of the study that is varied.", show_default=False)],
    name: Annotated[str, typer.Option(help="A name for the variation.", show_default=False)],
    key: KeyPath,
    formula: Annotated[str | None, typer.Option(help="Another formula.", show_default=False)] = None,
    variables: Annotated[str | None, typer.Option(help="Other variables, separated by commas.", show_default=False)] = None,
    subgroup: Annotated[str | None, typer.Option(help="One of the envelope's subgroups.", show_default=False)] = None,
    method: Annotated[str | None, typer.Option(help="One of the envelope's methods.", show_default=False)] = None,
    out: Out = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Vary an analysis of a signed study within its envelope; each site counts and logs what it answers."""
    from fivefold.cli.keys import open_key
    from fivefold.governance.study_check import parsed
    from fivefold.study.digest import load_signed
    from fivefold.study.envelope import sign_variation, varied, within

    signed = load_signed(study)
    chosen = None if variables is None else tuple(v.strip() for v in variables.split(",") if v.strip())
    other = varied(signed.study, analysis, name, formula=formula, subgroup=subgroup, variables=chosen, method=method)
    within(signed.study, other)
    parsed(signed.study, other)
    variation = sign_variation(signed.study, analysis, other, open_key(key))
    target = out or study.with_name(f"{_stem(study)}.{name}.variation.json")
    _keep(target, variation.to_bytes(), replace)
    _done(target, variation.study, as_json)


@app.command()
def reseed(
    study: StudyPath,
    seed: Annotated[int, typer.Option(help="The other seed.", show_default=False)],
    key: KeyPath,
    out: Out = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Sign a signed study with another seed and nothing else changed; every custodian then has to approve it."""
    from fivefold.cli.keys import open_key
    from fivefold.study.digest import load_signed
    from fivefold.study.reseed import reseeded_file, sign_reseeded

    signed = sign_reseeded(load_signed(study).study, seed, open_key(key))
    target = out or reseeded_file(study, seed)
    _keep(target, signed.to_bytes(), replace)
    _done(target, signed.digest, as_json)


@app.command()
def schema(
    of: Annotated[Literal["study", "dictionary", "mapping", "site"], typer.Argument(help="Which kind of file.")] = "study",
) -> None:
    """Print the JSON Schema with which an editor completes and checks a file: study, dictionary, mapping or site (policy)."""
    from fivefold.cli.schemas import published

    typer.echo(published(of), nl=False)


def _plot(bounded: Estimate, path: Path) -> None:
    from fivefold.governance.study_estimate import what_if, what_if_figure
    from fivefold.records.files import write_file
    from fivefold.results.plots import draw

    table = what_if(bounded)
    if table is None:
        raise StudyInvalid(
            "the study's sums are exact: there is no ε to draw", help="Write differential_privacy under privacy."
        )
    kind = path.suffix.removeprefix(".")
    if kind not in ("svg", "png"):
        raise StudyInvalid(f"{path.name} is neither .svg nor .png", help="Name the file epsilon.svg, for example.")
    write_file(path, draw(*what_if_figure(table))[kind])
    typer.echo(f"Written: {path}", err=True)


# ---- files ----------------------------------------------------------------------------------------------------------
def _opened(path: Path) -> Study:
    """The study in a study file, a frozen or a signed one."""
    from fivefold.governance import study_check
    from fivefold.study.digest import SIGNED_FORMAT, load_signed, parsed_json, read_bytes, study_from

    if path.suffix != ".json":
        return study_check.check(path).enforced()
    data = read_bytes(path)
    value = parsed_json(data, str(path))
    signed = isinstance(value, dict) and value.get("format") == SIGNED_FORMAT
    return load_signed(data).study if signed else study_from(data)


def _ready(path: Path) -> Study:
    """The study, with nothing open any more. Raises `StudyInvalid`, and `KeyProblem` where all that is missing are keys."""
    from fivefold.governance import study_check

    if path.suffix == ".json":
        return _opened(path)
    checked = study_check.check(path)
    if not checked.faults and checked.open and all("public key" in f.what for f in checked.open):
        raise KeyProblem(str(checked.open[0]), help=checked.open[0].instead)
    return checked.enforced(ready=True)


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _keep(path: Path, data: bytes, replace: bool) -> None:
    """Write, unless the file says something else already: others may have approved that."""
    from fivefold.records.files import write_file

    if path.exists() and not replace and path.read_bytes() != data:
        raise StudyAltered(
            f"{path} exists already and says something else",
            help="Give --replace to overwrite it; every site then has to approve the study anew.",
        )
    write_file(path, data)


def _propose(target: Path, signed: SignedStudy, private: bytes) -> None:
    """The lead's word of when and why, beside the signed file; one that says so already is kept."""
    from fivefold.errors import StatementInvalid
    from fivefold.governance.proposals import beside, found_beside, propose
    from fivefold.records.files import write_file

    try:
        there = bool(found_beside(target, signed))
    except StatementInvalid:  # of what stood here before
        there = False
    if not there:
        write_file(beside(target), propose(signed, private))


# ---- words ----------------------------------------------------------------------------------------------------------
def _json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _done(target: Path, digest: str, as_json: bool) -> None:
    if as_json:
        _json({"file": str(target), "digest": digest})
        return
    typer.echo(f"Written: {target}")
    typer.echo(f"digest of the study  {digest}")


def _list(title: str, found: tuple[Located, ...]) -> None:
    if not found:
        return
    typer.echo(f"{title} ({len(found)}):")
    for fault in found:
        typer.echo(f"  {fault}" + (f". {fault.instead}" if fault.instead else ""))


def _check_json(checked: Checked, wrong: bool) -> dict[str, Any]:
    def plain(found: tuple[Located, ...]) -> list[dict[str, Any]]:
        return [{"file": f.file, "line": f.line, "what": f.what, "instead": f.instead} for f in found]

    return {
        "in_order": not wrong,
        "faults": plain(checked.faults),
        "open": plain(checked.open),
        "notes": plain(checked.notes),
    }


def _safes(study: Study) -> None:
    """The study's own part of the Five Safes; each site asks more, by its own policy."""
    from fivefold.errors import FivefoldError
    from fivefold.governance.five_safes import SAFES, of_study

    try:
        found = of_study(study, date.today())
    except FivefoldError:
        return  # an unreadable last day stands among what is still open
    for safe, said in found.items():
        for one in said:
            typer.echo(f"{'✓' if one.permit else '✗'} {SAFES[safe].lower()}: {one.sentence}")


def _promise(study: Study) -> None:
    from fivefold.cli.study_page import promise_lines

    for line in promise_lines(study):
        typer.echo(line)
