"""`fivefold site`: the side with the rows. The custodian's own commands: policy, approvals, keys, data."""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fivefold.cli.arguments import HERE, KeyFile, StudyFile, Where
from fivefold.cli.site_attack import attack
from fivefold.cli.site_budget import budget
from fivefold.cli.site_data import data
from fivefold.cli.site_life import close, counter, life, recall, refuse, review
from fivefold.cli.site_page import plain, print_report, print_study
from fivefold.cli.site_people import app as people_commands
from fivefold.cli.site_start import app as site_app
from fivefold.cli.site_start import connection, start
from fivefold.cli.site_usage import usage
from fivefold.cli.site_withdraw import notice, withdraw

if TYPE_CHECKING:
    from fivefold.site.folder import SiteFolder
    from fivefold.study.definition import Study
    from fivefold.study.digest import SignedStudy

app = typer.Typer(help="The side with the rows: policy, approvals, keys, data.", no_args_is_help=True, add_completion=False)
key_commands = typer.Typer(help="Replace or revoke keys, by signed statements.", no_args_is_help=True)
app.add_typer(key_commands, name="keys")
app.add_typer(people_commands, name="people")
app.command()(attack)
app.command()(budget)
app.command()(data)
app.command()(usage)
app.command()(start)
app.command()(connection)
app.command()(withdraw)
app.command()(review)
app.command()(refuse)
app.command()(counter)
app.command()(close)
app.command()(life)
app.command()(recall)
app.command()(notice)
app.command("app")(site_app)

Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The last day.", metavar="DAY")]


class Choice(StrEnum):
    permitted = "permitted"
    refused = "refused"


class Role(StrEnum):
    custodian = "custodian"
    node = "node"


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="DIR", show_default=False)],
    name: Annotated[str, typer.Option(help="The site's short name, as the study will write it.", show_default=False)],
    custodian: Annotated[str, typer.Option(help="Who answers for the rows.")] = "Data custodian",
) -> None:
    """Make a site's folder: keys of node and custodian, a policy (signed) and a mapping to fill in."""
    from fivefold.auth.keys import fingerprint
    from fivefold.engines.flower.certificates import make_connection_key
    from fivefold.governance.custody import node_key
    from fivefold.site.folder import create

    site = create(folder, name, custodian=custodian)
    public = node_key(site.path)
    make_connection_key(site.keys)
    typer.echo(f"made {folder}: site.yaml (version 1, signed), mapping.yaml, keys/, state/\n")
    typer.echo("Send this to the lead of the study, and read the fingerprint out to the other sites:")
    typer.echo(f"  public key   {public}\n  fingerprint  {fingerprint(bytes.fromhex(public))}\n")
    typer.echo(f"Send the coordinator {site.keys / 'connection.pub'}; `fivefold site start` connects with its private half.\n")
    typer.echo("Next: write the other sites' fingerprints under `peers:` in site.yaml, raise its version, and sign it:")
    typer.echo(f"  fivefold site sign-policy --site {folder}")
    typer.echo("Move keys/custodian.key to a place that the node cannot read; name it with --key from then on.")


@app.command("sign-policy")
def sign_policy(site: Where = HERE, key: KeyFile = None) -> None:
    """Sign site.yaml as a new version. Approvals that were given under the old one are void."""
    from fivefold.governance.custody import sign_policy as sign
    from fivefold.governance.policy import FILE, Policy
    from fivefold.site.budget_book import others

    here = _opened(site)
    proposed = Policy.read(here.path / FILE)
    with here.act("policy", version=proposed.version, digest=proposed.digest):
        policy = sign(here.path, _custodian_key(here, key))
    typer.echo(f"signed version {policy.version} of site.yaml; studies need a new approval under it")
    for other in others(here.state, policy.asset):
        typer.echo(
            f"What was charged to the asset {other.asset} does not count for {policy.asset}: other records, or a mistake?"
        )


@app.command()
def check(
    study: Annotated[Path, typer.Argument(help="The study, signed or not.", metavar="STUDY", show_default=False)],
    site: Where = HERE,
) -> None:
    """Map the site's rows and print what was found, variable by variable. Nothing is kept, nothing leaves."""
    from fivefold.site.preparation import inspect

    here = _opened(site)
    with here.act("mapping check"):
        found = inspect(here, _any_study(study))
    print_report(found.report.value())


@app.command()
def rehearse(
    study: Annotated[Path, typer.Argument(help="The study, signed or not.", metavar="STUDY", show_default=False)],
    site: Where = HERE,
    full: Annotated[bool, typer.Option("--full", help="Print every number; long answers are cut otherwise.")] = False,
) -> None:
    """Play the study on this site's own rows: prints every number that would have left. Nothing is sent, nothing is kept."""
    import numpy as np

    from fivefold.site.rehearsal import rehearse as rehearsed
    from fivefold.study.digest import digest

    here, asked = _opened(site), _any_study(study)
    with here.act("rehearsal"):
        for at in rehearsed(here, asked, digest(asked)):
            steps = ", ".join(one.step.identity for one in at.asked.sums)
            typer.echo(f"\nround {at.asked.round}  {at.asked.analysis.name}: {steps}")
            if at.refusal is not None:
                typer.echo(f"  refused: {at.refusal.message}\n  {at.refusal.hint}")
            for name, numbers in at.numbers.items():
                limit = numbers.size + 1 if full else 40
                text = np.array2string(numbers, threshold=limit, precision=10, max_line_width=100)
                typer.echo(f"  {name} {'' if numbers.shape == () else numbers.shape}: " + text.replace("\n", "\n    "))
    typer.echo("\nNothing was sent. In a run each of these numbers leaves masked, and only totals over sites are opened.")


@app.command()
def show(
    study: Annotated[
        Path | None, typer.Argument(help="A study, to see what the policy says to it.", metavar="[STUDY]", show_default=False)
    ] = None,
    site: Where = HERE,
) -> None:
    """Show policy, keys, approvals and snapshots; with a study, what the policy says to it and why."""
    from fivefold.errors import FivefoldError
    from fivefold.governance.approvals import approvals, check_approval
    from fivefold.governance.five_safes import SAFES, first_objection, judge
    from fivefold.governance.policy import decide
    from fivefold.study.digest import digest as digest_of

    here = _opened(site)
    custody = here.custody()
    policy, now = custody.policy, datetime.now(UTC)
    typer.echo(f"site {policy.site}, policy version {policy.version} (signed), asset {policy.asset}, until {policy.expires}")
    if policy.tier is not None:
        typer.echo(f"  tier      {policy.tier}")
    for key, who in custody.custodians.items():
        why = custody.standing(key, now.date())
        typer.echo(f"  custodian {who.name}  {key[:16]}…  {why[1] if why else f'until {who.until}'}")
    for peer in policy.peers:
        typer.echo(f"  peer      {peer.site}  {peer.fingerprint}")
    for digest, said in approvals(here.path).items():
        frozen = "frozen" if (here.state / "snapshots" / f"{digest}.snapshot").exists() else "no snapshot"
        try:
            approval = check_approval(here.path, digest, now, custody=custody)
            state = f"approved by {approval.custodian} until {approval.expires}"
        except FivefoldError as error:
            state = error.message
        typer.echo(f"  study     {digest[:16]}…  {said[0].facts.get('title', '')}  {state}; {frozen}")
    if study is not None:
        it = _any_study(study)
        decisions = [
            decide(policy, it, today=now.date()),
            *(decide(policy, it, analysis=a, today=now.date()) for a in it.analyses),
        ]
        decision = next((d for d in decisions if not d.permit), decisions[0])
        safes = judge(here.path, custody, it, digest_of(it), now.date())
        if decision.permit:
            decision = first_objection(safes) or decision
        for safe, said_of in safes.items():
            for one in said_of:
                typer.echo(f"  {'✓' if one.permit else '✗'} {SAFES[safe].lower()}: {one.sentence} (rule {one.rule})")
        verdict = "permits" if decision.permit else "refuses"
        typer.echo(
            f"policy {verdict} this study: rule {decision.rule}, line {decision.line or '- (default)'}: {decision.sentence}"
        )


@app.command()
def approve(
    study: StudyFile,
    site: Where = HERE,
    key: KeyFile = None,
    analysis: Annotated[list[str] | None, typer.Option(help="An analysis to approve; all if left out.", metavar="NAME")] = None,
    site_totals: Annotated[Choice | None, typer.Option(help="May this site's own totals become known?")] = None,
    event_totals: Annotated[Choice | None, typer.Option(help="May totals at single event times become known?")] = None,
    expires: Day = None,
    checker: Annotated[
        list[str] | None, typer.Option(help="An output checker of this site's own, whose veto binds.", metavar="NAME=KEY")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="The choices of the last approval, where only code or policy changed since.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Approve a signed study with the custodian's own key. Nothing is answered for a study without it."""
    from fivefold.governance import approvals
    from fivefold.governance.proposals import found_beside
    from fivefold.governance.statements import read_chain
    from fivefold.site.approved_code import difference, keep
    from fivefold.site.life import reviewed, stated, superseded

    here = _opened(site)
    with here.act("approval asked") as log:
        signed = _signed(study)
        proposal = found_beside(study, signed)
        reviewed(here, signed, proposal)
        decision = approvals.decision(here.path, signed.study, datetime.now(UTC)).enforce()
        print_study(signed, proposal)
        typer.echo(f"policy    {decision.sentence}")
        for line in approvals.code_changes(here.path, signed.study, signed.digest):
            typer.echo(f"code      {line}, since the last approval")
        for line in difference(here, signed.study, signed.digest):
            typer.echo("  " + plain(line))
        if not yes:
            typer.confirm("Approve?", abort=True)
        log.write("approval", study=signed.digest, title=signed.study.title)
        custodian = _custodian_key(here, key)
        given = (
            approvals.approve_again(here.path, signed.study, signed.digest, custodian)
            if again
            else approvals.approve(
                here.path,
                signed.study,
                signed.digest,
                custodian,
                analyses=tuple(analysis or ()),
                site_totals=site_totals.value if site_totals else None,
                event_totals=event_totals.value if event_totals else None,
                expires=expires.date() if expires else None,
                checkers=[(n.strip(), k.strip()) for n, _, k in (c.rpartition("=") for c in checker or ())],
            )
        )
        stated(log, read_chain(approvals.chain_of(here.path, signed.digest))[-1])
        before = superseded(here, signed, custodian)
        keep(here, signed.study)
    typer.echo(f"approved by {given.custodian} until {given.expires}, under version {given.policy_version} of site.yaml")
    typer.echo(f"  analyses {', '.join(given.analyses)}; site_totals {given.site_totals}; event_totals {given.event_totals}")
    if before:
        typer.echo(f"  the approval of the version before ({before[:16]}…) is withdrawn")
    if given.checkers:
        typer.echo(f"  output checkers of this site's own: {', '.join(name for name, _ in given.checkers)}")


@app.command()
def prepare(
    study: StudyFile,
    site: Where = HERE,
    again: Annotated[bool, typer.Option("--again", help="Freeze anew, from the rows as they are now.")] = False,
) -> None:
    """Freeze the study's cohort as a sealed snapshot, which all its rounds read."""
    from fivefold.site.preparation import prepare as freeze

    here = _opened(site)
    with here.act("preparation asked", again=again) as log:
        signed = _signed(study)
        log.write("preparation", study=signed.digest)
        prepared = freeze(here, signed.study, signed.digest, again=again)
    print_report(prepared.report)
    typer.echo(f"frozen at {prepared.prepared_at}; data {prepared.tags.data[:16]}… (keyed digest)")


@app.command()
def evidence(
    study: StudyFile,
    site: Where = HERE,
    out: Annotated[Path | None, typer.Option(help="Where to write it; SITE.evidence.json by default.", metavar="FILE")] = None,
) -> None:
    """Hand over what a research package tells of this site: approvals, keyed digest of the data, head of the log; signed."""
    from fivefold.records.files import write_named
    from fivefold.site.evidence import evidence_of
    from fivefold.study.digest import load_signed

    folder = _opened(site)
    target = out or Path(f"{folder.name()}.evidence.json")
    write_named(target, evidence_of(folder, load_signed(study)))
    typer.echo(f"wrote {target}: send it to whoever packs the run; it holds no value, no count and no path")


@app.command("opt-out")
def opt_out(person: Annotated[str, typer.Argument(help="The identifier, as the data have it.")], site: Where = HERE) -> None:
    """Take a person out of every later snapshot."""
    from fivefold.site.folder import add_opt_out

    new = add_opt_out(_opened(site), person)
    typer.echo("written; snapshots made from now on leave this person out" if new else "this person stands in the list already")


@key_commands.command("rotate")
def rotate(
    role: Annotated[Role, typer.Argument(help="Whose key.")],
    site: Where = HERE,
    key: KeyFile = None,
    new: Annotated[
        Path | None, typer.Option(help="The custodian's new key file, made with `fivefold keys new`.", metavar="FILE")
    ] = None,
    until: Day = None,
) -> None:
    """Replace a key by a new one; the statement is signed by both (and by a custodian, for a node's)."""
    from datetime import timedelta

    from fivefold.auth.keys import fingerprint, public_of
    from fivefold.cli.keys import open_key
    from fivefold.governance import custody
    from fivefold.governance.approvals import statements_of
    from fivefold.governance.register import entries_of
    from fivefold.site.folder import rotate_node_key

    here = _opened(site)
    old = _custodian_key(here, key)
    if role is Role.node:
        if new is not None or until is not None:
            raise typer.BadParameter("--new and --until are for a custodian's key; the node makes its own", param_hint="--new")
        public = rotate_node_key(here, old)
        typer.echo(f"new public key  {public}\nfingerprint     {fingerprint(bytes.fromhex(public))}")
        typer.echo("Send the newest statement in state/keys to leads and peers; studies need this key, and a new signature.")
        return
    if new is None:
        raise typer.BadParameter("name the new key file with --new", param_hint="--new")
    fresh, last = open_key(new), until.date() if until else date.today() + timedelta(days=730)
    was, becomes = public_of(old).hex(), public_of(fresh).hex()
    with here.act("custodian key rotation", old=was, new=becomes):
        keeps = (*statements_of(here.path, was), *entries_of(here.path, was))
        custody.rotate_custodian(here.path, old, fresh, until=last, keeps=keeps)
    typer.echo(f"new public key  {becomes}, valid until {last}")
    typer.echo("Approvals in force stay so. Write the new key under `custodians:` in the next version of site.yaml.")


@key_commands.command("revoke")
def revoke(
    public_key: Annotated[str, typer.Argument(help="The public key, 64 hex digits.", metavar="KEY", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why, for the record.", show_default=False)],
    site: Where = HERE,
    key: KeyFile = None,
) -> None:
    """Declare a key dead, with every approval that it alone signed."""
    from fivefold.governance.custody import revoke_key

    here = _opened(site)
    with here.act("key revocation", key=public_key, reason=reason):
        revoke_key(here.path, public_key.strip().lower(), _custodian_key(here, key), reason=reason)
    typer.echo("revoked: what this key alone signed is void, at once")


def _opened(path: Path) -> SiteFolder:
    from fivefold.site.folder import opened

    return opened(path)


def _signed(path: Path) -> SignedStudy:
    from fivefold.study.digest import load_signed

    return load_signed(path)


def _any_study(path: Path) -> Study:
    from fivefold.study.yaml import load

    return _signed(path).study if path.suffix == ".json" else load(path)


def _custodian_key(site: SiteFolder, key: Path | None) -> bytes:
    from fivefold.cli.keys import open_key

    return open_key(key or site.keys / "custodian.key")
