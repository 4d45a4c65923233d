"""The border: what a study file and a dictionary file may hold, as frozen pydantic models. Unknown keys are errors.

What these models cannot say (a variable that nobody declared, two sites with one key) is `study/consistency.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, StringConstraints

VARIABLE_NAME = r"^[A-Za-z][A-Za-z0-9_]{0,63}$"
SHORT_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


def _printable(text: str) -> str:
    """Text that is shown on a terminal elsewhere must not steer it."""
    if any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or c in "\u202a\u202b\u202c\u202d\u202e" for c in text):
        raise ValueError("a control character stands in the text")
    return text


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000), AfterValidator(_printable)]
MaybeText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=10_000), AfterValidator(_printable)]
VariableName = Annotated[str, StringConstraints(pattern=VARIABLE_NAME)]
ShortName = Annotated[str, StringConstraints(pattern=SHORT_NAME)]
Whole = Annotated[int, Strict(), Field(ge=-(2**53) + 1, le=2**53 - 1)]
Seed = Annotated[int, Strict(), Field(ge=0, le=2**53 - 1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Names = tuple[VariableName, ...]
VariableType = Literal["number", "integer", "category", "boolean", "date", "text"]


class Border(BaseModel):
    """Frozen; a key that nobody declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", title=None)


class VariableFile(Border):
    """One phenotype of the dictionary."""

    label: Text = Field(description="What the variable is, for people.", examples=["Age at diagnosis"])
    type: VariableType
    unit: MaybeText = Field("", description="Unit of the dictionary, as pint reads it.", examples=["year", "mmol/L"])
    minimum: Number | None = Field(None, description="Smallest value that counts as possible; needed for numbers in a sum.")
    maximum: Number | None = Field(None, description="Largest value that counts as possible; needed for numbers in a sum.")
    codes: dict[Text, Text] = Field(
        default_factory=dict, description="Code to label, in order; the first is the reference.", examples=[{"1": "male"}]
    )
    missing_codes: tuple[Text, ...] = Field((), description="Codes that mean: not known.", examples=[["9"]])
    iri: MaybeText = Field("", description="The concept in an ontology.", examples=["http://snomed.info/id/397669002"])


class DictionaryFile(Border):
    """The shared phenotype dictionary: what each variable means, in the study's own units and codes."""

    name: Text
    version: Text = Field(description="Text, so write it in quotes.", examples=["1"])
    variables: dict[VariableName, VariableFile] = Field(min_length=1)


class DerivedFile(Border):
    """A variable that each site computes from others."""

    name: VariableName
    expression: Text = Field(description="A formula over other variables.", examples=["weight / (height ** 2)"])
    label: Text
    type: VariableType
    unit: MaybeText = ""
    minimum: Number | None = None
    maximum: Number | None = None
    codes: dict[Text, Text] = Field(default_factory=dict)
    iri: MaybeText = ""


class LeadFile(Border):
    """Who asks, and signs the study."""

    name: Text
    organisation: Text
    public_key: MaybeText = Field("", description="64 hex digits from `fivefold keys show FILE`; needed before freezing.")
    orcid: MaybeText = Field("", examples=["0000-0002-1825-0097"])


class SiteFile(Border):
    """An institution that is asked."""

    name: ShortName = Field(description="Short and unique.")
    organisation: MaybeText = ""
    public_key: MaybeText = Field("", description="The key of the site's node, 64 hex digits; needed before freezing.")


class CohortFile(Border):
    """Which persons: all of `include` hold and none of `exclude`."""

    include: tuple[Text, ...] = Field((), examples=[["age >= 18"]])
    exclude: tuple[Text, ...] = ()
    index_date: VariableName | None = Field(None, description="The date from which time counts.")


class AnalysisFile(Border):
    """One method with its formula and options."""

    name: ShortName
    method: Text = Field(examples=["statistics", "glm", "cox", "kaplan_meier"])
    formula: MaybeText = Field("", examples=["Surv(time, status) ~ age + sex + strata(site)"])
    variables: Names = ()
    subgroup: MaybeText = Field("", description="A condition that restricts the rows.")
    options: dict[str, Any] = Field(default_factory=dict)
    sites: tuple[ShortName, ...] = Field((), description="The sites that take part in it; all of the study if left out.")


class EnvelopeFile(Border):
    """Within this the lead may vary an analysis without a new approval."""

    variables: Names = ()
    methods: tuple[Text, ...] = ()
    subgroups: tuple[Text, ...] = ()
    fits: Whole = Field(0, description="How many variations in all.")


class DifferentialPrivacyFile(Border):
    """Noise in every answer, so that no person (or no site) shows in it."""

    unit: Literal["person", "site"] = Field(description="What is protected: all rows of one person, or one whole site.")
    epsilon: Number = Field(description="The cap: what all questions of the study together may cost.", examples=[3.0])
    delta: Number = Field(description="Far below one over the number of persons.", examples=[1e-6])
    noise_multiplier: Number = Field(description="Noise's deviation over sensitivity; `fivefold study estimate` finds it.")
    dropouts: Whole = Field(0, description="Sites that may be missing while the noise still suffices.")


class PrivacyFile(Border):
    """How the coordinator is kept from learning more than sums."""

    mode: Literal["secure_sum"] = "secure_sum"
    adversary: Literal["active", "curious"] = "active"
    threshold: Whole | None = Field(
        None, description="Sites needed to unmask a sum; left out: two thirds of the sites and one."
    )
    minimum_sites: Whole = Field(3, description="3 or more.")
    minimum_persons: Whole = Field(5, description="No total over fewer persons is shown.")
    minimum_difference: Whole = Field(
        2, description="Sites by which any two sums over different survivors must differ, colluders not counted; 2 or more."
    )
    colluders: Whole = Field(0, description="Sites that may work together with the coordinator.")
    honest: Whole = Field(2, description="Honest sites in every sum, 2 or more.")
    max_rows_per_site: Whole = Field(1_000_000, description="Public bound; the exactness of the sum follows from it.")
    differential_privacy: DifferentialPrivacyFile | None = Field(None, description="Left out: sums are exact.")


class StragglersFile(Border):
    """What a round does about slow sites."""

    policy: Literal["wait", "quorum", "drop"] = Field("wait", description="Wait for all, for a quorum, or drop who is late.")
    quorum: Whole | None = Field(None, description="Sites that suffice; left out: as few as the secure sum can open.")
    deadline: Number | None = Field(
        None, description="quorum: seconds for which a trip waits for all sites before the quorum suffices.", examples=[60.0]
    )


class OutputCheckerFile(Border):
    """A person who sees results first, and lets them go or not; never the lead, never who runs the coordinator or a node."""

    name: Text
    organisation: MaybeText = ""
    public_key: MaybeText = Field("", description="64 hex digits from `fivefold keys show FILE`; needed before freezing.")


class OutputsFile(Border):
    """What is to come out."""

    planned: tuple[Text, ...] = ()
    licence: Text = "CC-BY-4.0"
    checkers: tuple[OutputCheckerFile, ...] = Field((), description="Who checks what is released; a sealed run needs them.")
    checks: Whole = Field(2, description="How many of them must agree, each independently.")


class AgreementsFile(Border):
    """Under which agreements."""

    ethics: Text = Field(description="Reference of the ethics approval.")
    purpose: Text
    expires: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")] = Field(
        description="After this day no site answers.", json_schema_extra={"format": "date"}
    )
    public_benefit: MaybeText = Field("", description="Who gains from it, in one sentence; some sites ask for it.")
    data_sharing: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = Field(
        "", description="SHA-256 of the data-sharing agreement's file (64 hex digits); some sites compare it with theirs."
    )


class StudyFile(Border):
    """The whole study file."""

    title: Text
    question: Text
    lead: LeadFile
    sites: tuple[SiteFile, ...] = Field(min_length=1)
    dictionary: Text | DictionaryFile = Field(description="Path of the dictionary beside this file, or the dictionary itself.")
    person: VariableName = Field(description="The name under which sites map their person identifier.")
    cohort: CohortFile = CohortFile()
    variables: dict[VariableName, Text] = Field(min_length=1, description="Each variable used, and why.")
    derived: tuple[DerivedFile, ...] = ()
    analyses: tuple[AnalysisFile, ...] = Field(min_length=1)
    envelope: EnvelopeFile = EnvelopeFile()
    privacy: PrivacyFile = PrivacyFile()
    outputs: OutputsFile = OutputsFile()
    agreements: AgreementsFile
    seed: Seed = 0
    stragglers: StragglersFile = StragglersFile()


def json_schema(name: str, model: type[BaseModel], comments: Mapping[str, str] = MappingProxyType({})) -> str:
    """The published JSON Schema (2020-12) of a kind of file, as text with a final newline; `comments` describe its own keys."""
    import json

    schema = model.model_json_schema(by_alias=True)
    for key, text in comments.items():
        schema["properties"][key].setdefault("description", text)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:fivefold:{name}-file:1",
        "title": f"Fivefold {name} file",
    }
    return json.dumps(head | {k: v for k, v in schema.items() if k != "title"}, indent=2, ensure_ascii=False) + "\n"
