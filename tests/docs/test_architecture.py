"""The map shows the real tree: every module and package is on it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import fivefold

PACKAGE = Path(fivefold.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"


def drawn() -> set[str]:
    """The modules of the page's tree as `package/module`, and its packages as `package/`."""
    tree = re.search(r"```text\nfivefold/\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert tree is not None
    found: set[str] = set()
    package = ""
    for line in tree.group(1).splitlines():
        depth, words = len(line) - len(line.lstrip()), line.split()
        if depth == 2 and words[0].endswith(".py"):
            found.add(words[0].removesuffix(".py"))
        elif depth == 2:
            package = words[0]
            found.add(package)
        elif words[0].endswith("/"):
            found |= {package + words[0], *(package + words[0] + w for w in words[1:])}
        else:
            found |= {package + w for w in words}
    return found


def real() -> set[str]:
    found = set()
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE)
        if place.name == "__init__.py":
            found |= {f"{place.parent.as_posix()}/"} - {"./"}
        else:
            found.add(place.with_suffix("").as_posix())
    return found


def test_every_module_is_on_the_map() -> None:
    assert real() - drawn() == set()


def test_nothing_else_is_on_the_map() -> None:
    assert drawn() - real() == set()


def test_the_layers_stand_in_the_order_of_the_contract() -> None:
    import tomllib

    config = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    text = PAGE.read_text(encoding="utf-8")
    tree = text[text.index("```text\nfivefold/\n") :]
    places = [min(tree.index(f"\n  {name.strip()}") for name in layer.split("|")) for layer in layers]
    assert places == sorted(places)
