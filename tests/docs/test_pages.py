"""The documentation as a whole: every page is in the contents, every relative link leads somewhere, decisions are numbered."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LINK = re.compile(r"(?<!`)\[[^\]]+\]\((?!https?:|#|mailto:)([^)#\s]+)")


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/-]+\.md", contents))
    there = {p.relative_to(DOCS).as_posix() for p in PAGES}
    decisions = {name for name in there if re.fullmatch(r"decisions/\d{4}-.*\.md", name)}
    assert there - decisions == named


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_decisions_are_numbered_and_listed() -> None:
    files = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    assert [f.name[:4] for f in files] == [f"{i:04d}" for i in range(1, len(files) + 1)]
    contents = (DOCS / "decisions" / "index.md").read_text(encoding="utf-8")
    for file in files:
        text = file.read_text(encoding="utf-8")
        title = re.match(r"# (\d{4}) · (.+)\n", text)
        assert title is not None
        assert title.group(1) == file.name[:4]
        assert f"[{title.group(1)}]({file.name}) | {title.group(2)} |" in contents
        assert all(f"**{part}.**" in text for part in ("Open", "Chosen", "Costs"))


def test_the_readme_shows_the_commands_that_make_knows() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test", "check", "docs", "bench"} <= targets
    for file in ("README.md", "CONTRIBUTING.md"):
        assert set(re.findall(r"make (\w+)", (ROOT / file).read_text(encoding="utf-8"))) <= targets | {"and"}


COMMAND = re.compile(r"fivefold ((?:[a-z][a-z-]* ?)+)([^`\n]*)")


def commands() -> dict[str, set[str]]:
    """Every command by its words, with its options."""
    from fivefold.cli.main import app

    found: dict[str, set[str]] = {}

    def walk(command: click.Command, context: click.Context, words: tuple[str, ...]) -> None:
        found[" ".join(words)] = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        for name in command.list_commands(context) if isinstance(command, click.Group) else ():
            below = command.get_command(context, name)
            assert below is not None
            walk(below, click.Context(below, parent=context, info_name=name), (*words, name))

    walk(app, click.Context(app), ())
    return found


def test_every_command_that_a_page_names_is_there_with_its_options() -> None:
    known = commands()
    for page in [*PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md"]:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for words, rest in COMMAND.findall(text):
            said = words.split()
            if not said or said[0] not in known:
                continue
            most = next(n for n in range(len(said), 0, -1) if " ".join(said[:n]) in known)
            options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", rest.partition(" #")[0].partition("fivefold")[0]))
            assert options <= known[" ".join(said[:most])], f"{page.name}: fivefold {words}{rest}"
