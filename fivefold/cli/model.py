"""`fivefold model`: the trained model of a run as a file, with its card."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Take a trained model out of a run, with its card.", no_args_is_help=True, add_completion=False)


class FormatName(StrEnum):
    onnx = "onnx"
    safetensors = "safetensors"


@app.callback()
def model() -> None:
    """Take a trained model out of a run, with its card."""


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The run's folder.", metavar="RUN", show_default=False)],
    kind: Annotated[
        list[FormatName] | None,
        typer.Option(
            "--format", help="onnx: the whole computation. safetensors: the weights. Twice for both; onnx if left out."
        ),
    ] = None,
    analysis: Annotated[
        str, typer.Option(help="Which training, where the run has several.", metavar="NAME", show_default=False)
    ] = "",
    base: Annotated[
        Path | None, typer.Option(help="The base that adapters (LoRA) were trained on: merged, one network.", metavar="FILE")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for model and card; RUN-NAME beside the run by default.", metavar="DIR")
    ] = None,
) -> None:
    """Write a trained model with its model card; of a sealed run only what output checkers let go. Never a pickle."""
    from fivefold.coordinator import model_export

    wanted: list[model_export.Format] = [k.value for k in dict.fromkeys(kind or [FormatName.onnx])]
    folder = model_export.export(run, wanted, out, analysis=analysis, base=base)
    for path in sorted(folder.iterdir()):
        typer.echo(f"✓ {path} ({path.stat().st_size:,} bytes)")
