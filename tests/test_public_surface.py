"""The public surface is a list, and a change to it is a decision: whoever changes one of these changes this file, too."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import fivefold
from fivefold import errors, plugins
from fivefold.algorithms import method
from fivefold.protocol import questions, results

PACKAGE = Path(fivefold.__file__).parent

QUESTIONS = {
    "Aggregate",
    "Buffer",
    "Field",
    "Gather",
    "Noise",
    "OwnNoise",
    "Relay",
    "SiteStep",
    "Snapshot",
    "Sum",
    "read_only",
    "site_step",
}
RESULTS = {"Figure", "Result", "ResultTable", "plain"}
METHOD = {"Cost", "charged", "Method", "Setting"}


def defined(module: object) -> set[str]:
    """The public classes and functions that a module itself defines."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


@pytest.mark.parametrize(("module", "names"), [(questions, QUESTIONS), (results, RESULTS), (method, METHOD)])
def test_what_a_method_is_written_with(module: object, names: set[str]) -> None:
    assert defined(module) == names


def test_built_in_methods() -> None:
    assert set(plugins.METHODS) == {
        "statistics", "glm", "cox", "kaplan_meier", "fedavg", "fedprox", "fedopt", "fedbuff", "scaffold", "personalised",
        "cyclic", "robust",
    }  # fmt: skip
    for name in plugins.METHODS:
        found = plugins.method(name)
        assert found.name == name
        assert found.title
        assert found.paper


def test_three_kinds_of_question_and_no_fourth() -> None:
    assert str(questions.Question) == str(questions.Sum | questions.Gather | questions.Relay | tuple[questions.Sum, ...])


def classes(kind: type[errors.FivefoldError]) -> list[type[errors.FivefoldError]]:
    return [kind, *(c for child in kind.__subclasses__() for c in classes(child))]


def test_every_error_has_an_exit_code_of_its_own_and_a_next_step() -> None:
    tree = [c for c in classes(errors.FivefoldError) if c.__module__ == errors.__name__]
    codes = [c.exit_code for c in tree]
    assert len(tree) > 30
    assert len(set(codes)) == len(codes), sorted(c for c in codes if codes.count(c) > 1)
    assert all(1 <= code < 100 for code in codes)
    assert not {2, 70, 74} & set(codes)  # those are the command line's own
    more = {3: {7}}  # refusals have outgrown their tens
    for kind in tree:
        parent = kind.__mro__[1]
        if parent is not errors.FivefoldError and issubclass(parent, errors.FivefoldError):
            tens = parent.exit_code // 10
            assert kind.exit_code // 10 in {tens} | more.get(tens, set()), f"{kind.__name__} lies outside its parent's tens"


def test_what_leaves_a_site_about_an_error_has_no_message() -> None:
    for kind in classes(errors.FivefoldError):
        if kind.__module__ == errors.__name__:
            said = kind("secret 4711", help="secret 4712", rule="a_rule", variable="age").public()
            assert said == {"code": kind.__name__, "rule": "a_rule", "variable": "age"}


def test_every_module_says_what_it_is() -> None:
    for file in sorted(PACKAGE.rglob("*.py")):
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), f"{file.relative_to(PACKAGE)} has no docstring"


def test_no_drawer_for_everything() -> None:
    drawers = {"utils", "util", "common", "base", "constants", "helpers", "misc"}
    assert not [f for f in PACKAGE.rglob("*.py") if f.stem in drawers]
