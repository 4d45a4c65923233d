"""The page and the contexts that come with a crate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

from fivefold.records.crate import write_crate
from fivefold.records.five_safes_crate import crate_of as crate_of_package
from fivefold.records.validation import CONTEXTS
from tests.records.crate_values import entities, failed, strange_names, types
from tests.records.package_values import package


# ---- the preview ---------------------------------------------------------------------------------------------------
class Page(HTMLParser):
    """Text, tags and links of a page; every tag must be closed in its order."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("href", "src")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_preview_tells_a_person_the_run(crate: Path) -> None:
    page = Page((crate / "ro-crate-preview.html").read_text(encoding="utf-8"))
    for words in (
        "Survival in advanced lung cancer",
        "Do women with advanced lung cancer live longer than men?",
        "Ada Lead",
        "every site was played on one machine",
        "North Hospital",
        "persons 213 · events 151 · missing ecog 1 · sites North, East, South · dropped South (round 3)",
        "Hazard ratios of age, sex & ECOG",
        "sex = female",
        "0.5985",
        "minimum persons",
        "EC-2026-017",
        "ab" * 32,
        "fivefold audit verify audit.jsonl",
        "cox.score_and_information/1",
    ):
        assert words in page.text, words
    for link in page.links:
        assert link.startswith("https://orcid.org/") or (crate / link).is_file(), link
    assert "script" not in page.tags
    assert page.tags.count("img") == 5


def test_the_preview_takes_hostile_text_as_text(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("title: t\n")
    write_crate(tmp_path, strange_names(tmp_path))
    text = (tmp_path / "ro-crate-preview.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert '"><script>alert(1)</script>' in page.text
    assert '<b>Title</b> & "more"' in page.text


def test_the_preview_of_a_failed_run_says_why(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("title: t\n")
    write_crate(tmp_path, failed(tmp_path))
    text = Page((tmp_path / "ro-crate-preview.html").read_text(encoding="utf-8")).text
    assert "Failed" in text
    assert "TooFewPersons" in text
    assert "over the flower engine" in text


# ---- the contexts --------------------------------------------------------------------------------------------------
def contexts(names: Sequence[str] = ("ro_crate_1_1", "workflow_run")) -> dict[str, str]:
    paths = [CONTEXTS / f"{name}.json" for name in names]
    return {t: iri for path in paths for t, iri in json.loads(path.read_bytes())["@context"].items()}


def test_every_term_of_a_crate_is_in_the_contexts_that_are_shipped(crate: Path) -> None:
    used = set()
    for entity in entities(crate).values():
        used |= {key for key in entity if not key.startswith("@")} | set(types(entity))
    assert used - set(contexts()) == set()


def test_the_shipped_terms_are_the_published_ones() -> None:
    """rocrate holds the context of RO-Crate 1.3, which differs from 1.1 and the run vocabulary in these terms."""
    from rocrate.vocabs import RO_CRATE

    published = RO_CRATE["@context"]
    ours = contexts()
    differing = {term: iri for term, iri in ours.items() if published.get(term) != iri}
    assert differing == {
        "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
        "FormalParameter": "https://bioschemas.org/FormalParameter",
        "input": "https://bioschemas.org/ComputationalWorkflow#input",
        "output": "https://bioschemas.org/ComputationalWorkflow#output",
        "sha256": "https://w3id.org/ro/terms/workflow-run#sha256",
    }


def test_the_terms_of_ro_crate_1_2_are_the_published_ones_and_hold_all_that_a_package_uses() -> None:
    from rocrate.vocabs import RO_CRATE

    ours = contexts(["ro_crate_1_2"])
    assert {term: iri for term, iri in ours.items() if RO_CRATE["@context"].get(term) != iri} == {
        "FormalParameter": "https://bioschemas.org/FormalParameter"
    }
    used = set()
    for entity in crate_of_package(package())["@graph"]:
        used |= {key for key in entity if not key.startswith("@")} | set(types(entity))
    assert used - set(ours) == set()
