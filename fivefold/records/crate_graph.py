"""A crate's JSON-LD (flattened, compacted) as entities that refer to one another, for rules to walk over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Entity = Mapping[str, Any]
NOTHING: Entity = {}


@dataclass(frozen=True)
class Crate:
    """Entities by identifier. `bag` is the folder of the bag around the crate, None where rules of packing are not asked."""

    entities: Mapping[str, Entity]
    bag: Path | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, Any], bag: Path | None = None) -> Crate:
        graph = metadata.get("@graph")
        listed = graph if isinstance(graph, list) else []
        return cls({str(e["@id"]): e for e in listed if isinstance(e, Mapping) and "@id" in e}, bag)

    @property
    def descriptor(self) -> Entity:
        return self.get("ro-crate-metadata.json")

    @property
    def root(self) -> Entity:
        return self.get("./")

    @property
    def workflow(self) -> str:
        """The identifier of the root's one main entity; empty where there is not exactly one."""
        found = ids(self.root.get("mainEntity"))
        return found[0] if len(found) == 1 else ""

    @property
    def run(self) -> Entity:
        """The action that stands for the run: the first CreateAction, those that the root mentions before others."""
        mentioned = ids(self.root.get("mentions"))
        found = sorted(self.all("CreateAction"), key=lambda e: e["@id"] not in mentioned)
        return found[0] if found else NOTHING

    def get(self, name: str) -> Entity:
        return self.entities.get(name, NOTHING)

    def all(self, kind: str) -> list[Entity]:
        """Every entity of a type, in the crate's order."""
        return [e for e in self.entities.values() if kind in kinds(e)]

    def follow(self, entity: Entity, name: str) -> list[Entity]:
        """The entities that a property refers to; those that are not in the crate are left out."""
        return [self.entities[i] for i in ids(entity.get(name)) if i in self.entities]

    def phases(self, phase: str) -> list[Entity]:
        """The assessments of a phase: `CheckValue`, `ValidationCheck`, `SignOff`, `DisclosureCheck`."""
        return [e for e in self.all("AssessAction") if f"https://w3id.org/shp#{phase}" in ids(e.get("additionalType"))]

    def inside(self, name: str) -> Iterator[str]:
        """Everything that a Dataset has as part, through folders of any depth."""
        seen, open_ = set[str](), [name]
        while open_:
            for part in ids(self.get(open_.pop()).get("hasPart")):
                if part not in seen:
                    seen.add(part)
                    open_.append(part)
                    yield part


def kinds(entity: Entity) -> list[str]:
    found = entity.get("@type", ())
    return [found] if isinstance(found, str) else list(found)


def ids(value: Any) -> list[str]:
    """The identifiers that a property's value refers to; plain text counts as an identifier."""
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return [str(v["@id"]) if isinstance(v, Mapping) and "@id" in v else str(v) for v in listed]
