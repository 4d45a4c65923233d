"""The published JSON Schemas: of every file that people write by hand, so that editors complete and check it.

They also lie in the package, under `fivefold/schemas/`; a test compares the two.
"""

from __future__ import annotations

from importlib import import_module

MODELS = {
    "study": ("fivefold.study.schema", "StudyFile"),
    "dictionary": ("fivefold.study.schema", "DictionaryFile"),
    "mapping": ("fivefold.data.mapping", "Mapping"),
    "site": ("fivefold.governance.policy", "Policy"),
}
"""Kind of file → where its border stands."""


def published(kind: str) -> str:
    """The JSON Schema (2020-12) of study.yaml, dictionary.yaml, mapping.yaml or site.yaml, as text with a final newline."""
    from fivefold.study.schema import json_schema

    module, name = MODELS[kind]
    return json_schema(kind, getattr(import_module(module), name), _comments() if kind == "site" else {})


def _comments() -> dict[str, str]:
    """What `fivefold site init` writes over each key of site.yaml: the same words."""
    from fivefold.site.folder import COMMENTS

    return COMMENTS
