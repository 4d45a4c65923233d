"""`fivefold crate`: look into the research package of a run, and validate it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Look into the research package of a run.", no_args_is_help=True, add_completion=False)

RunFolder = Annotated[Path, typer.Argument(help="The run folder.", metavar="DIR", show_default=False)]


@app.command()
def validate(
    folder: RunFolder,
    recommended: Annotated[bool, typer.Option("--recommended", help="Check what the profile recommends, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare every file with its digest, and the crate with its profile (rocrate-validator, offline). Exit code 56 if not."""
    from fivefold.errors import CrateInvalid
    from fivefold.records.validation import changed_files, profile_faults, validator

    faults = changed_files(folder)
    command = validator()
    if command is not None:
        faults += profile_faults(folder, command, "recommended" if recommended else "required")
    if as_json and not faults:
        import json

        typer.echo(json.dumps({"files": "unchanged", "profile": "accepted" if command else "not checked"}))
    if faults:
        more = f" and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise CrateInvalid("; ".join(faults[:10]) + more, help="Take the files from a copy, or run the study again.")
    if as_json:
        return
    typer.echo(f"✓ every file of {folder} is as the crate describes it")
    if command is not None:
        level = "RECOMMENDED" if recommended else "REQUIRED"
        typer.echo(f"✓ rocrate-validator accepts it as a Provenance Run Crate 0.5 ({level} rules)")
        return
    typer.echo("  rocrate-validator is not installed, so the profile's rules were not checked.")
    typer.echo("  Make its environment with `sh tools/make_crate_env.sh`, or name the command in FIVEFOLD_ROCRATE_VALIDATOR.")


@app.command()
def show(folder: RunFolder) -> None:
    """Print what a crate tells: the question, who asked, each site, each analysis, the files."""
    from rich.console import Console
    from rich.text import Text

    from fivefold.records.validation import read_crate

    crate = read_crate(folder)
    root = crate.get("./", {})
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(str(root.get("name", "")), "bold"))
    console.print(Text(str(crate.get(_id(root.get("mainEntity")), {}).get("description", ""))))
    author = crate.get(_id(root.get("author")), {})
    run = crate.get("#run", {})
    console.print(Text(f"asked by {author.get('name', '')}; {run.get('description', '')}", "dim"))
    console.print(Text(f"licence {_id(root.get('license'))}; preview {folder / 'ro-crate-preview.html'}", "dim"))
    for heading, prefix in (("Sites", "#answers-"), ("Analyses", "#analysis-")):
        console.print(Text(f"\n{heading}", "bold"))
        for name, entity in crate.items():
            if name.startswith(prefix) and entity.get("@type") == "CreateAction":
                console.print(_line(entity))
    console.print(Text("\nFiles", "bold"))
    for name, entity in crate.items():
        if "File" in entity.get("@type", ()):
            size = f"{int(entity['contentSize']):,} bytes" if "contentSize" in entity else ""
            console.print(Text.assemble(f"  {name}", (f"  {size}", "dim")))


def _line(entity: Mapping[str, Any]) -> Any:
    from rich.text import Text

    done = str(entity.get("actionStatus", "")).endswith("CompletedActionStatus")
    mark = ("✓ ", "green") if done else ("✗ ", "red")
    return Text.assemble("  ", mark, str(entity.get("name", "")), (f"  {entity.get('description', '')}", "dim"))


def _id(reference: Any) -> str:
    return str(reference.get("@id", "")) if isinstance(reference, Mapping) else ""
