"""The workflow of a run in the Common Workflow Language 1.2: how anyone with the site folders plays an in-process run again.

A plain CommandLineTool without a container: the signed study and the site folders go in, result.json and the run folder come
out. The folders are copied first, so that what is played leaves no trace at the sites; it is a rehearsal, never a new run of
the consortium, which needs approvals and budget of its own.
"""

from __future__ import annotations

import json

FILE = "workflow.cwl"
LANGUAGE = "https://w3id.org/workflowhub/workflow-ro-crate#cwl"

TEXT = """\
cwlVersion: v1.2
class: CommandLineTool
label: {label}
doc: |
  Plays the signed study over site folders on one machine:
  cwltool workflow.cwl --study study.signed.json --sites sites/A --sites sites/B …
baseCommand: [fivefold, run]
arguments: [--sites, ., --out, run, --quiet]
requirements:
  InitialWorkDirRequirement:
    listing:
      - entry: $(inputs.sites)
        writable: true
inputs:
  study:
    type: File
    doc: The study as the lead signed it.
    inputBinding: {{position: 1}}
  sites:
    type: Directory[]
    doc: One folder for each site of the study, named like the site.
outputs:
  result:
    type: File
    outputBinding: {{glob: run/result.json}}
  run:
    type: Directory
    outputBinding: {{glob: run}}
"""


def workflow_of(title: str) -> bytes:
    """The description as the bytes of `workflow.cwl`; the same title gives the same bytes."""
    return TEXT.format(label=json.dumps(title, ensure_ascii=False)).encode()
