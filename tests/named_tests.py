"""A pytest plugin: what docs/satre.md and docs/threat-model.md name as played must pass, not only be there.

In a run of the whole suite a named test that was skipped, deselected or never came to an end makes the run fail, and the page's
row is told; in a run of a part, the tests that did not take part are not asked. With xdist the reports of all workers come
together at the controller, so nothing runs twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

PAGES = ("docs/satre.md", "docs/threat-model.md")
NAMED = re.compile(r"`(tests/[^`:\s]+\.py)::(\w+)`")
BROKEN = pytest.StashKey[list[str]]()
OUTCOMES = pytest.StashKey[dict[str, str]]()
"""The worst outcome of each test, by its node id: passed, skipped or failed."""
WORST = {"passed": 0, "skipped": 1, "failed": 2}


def named(root: Path) -> dict[tuple[str, str], str]:
    """Each test that a page names, (file, name), with the row that names it."""
    out = {}
    for page in PAGES:
        path = root / page
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            for file, name in NAMED.findall(line):
                out[file, name] = f"{page}: {line.strip('| ').split(' | ')[0]}"
    return out


def broken(wanted: Mapping[tuple[str, str], str], outcomes: Mapping[str, str], *, whole: bool) -> list[str]:
    """A sentence for each named test that did not pass. A test with parameters passes where all of them do."""
    found: dict[tuple[str, str], list[str]] = {}
    for node, outcome in outcomes.items():
        file, *parts = node.split("[")[0].split("::")
        for part in parts:
            found.setdefault((file, part), []).append(outcome)
    out = []
    for (file, name), row in sorted(wanted.items()):
        came = found.get((file, name), [])
        worst = max(came, key=lambda o: WORST.get(o, 2), default="not run" if whole else "passed")
        if worst != "passed" and (whole or worst == "failed"):
            out.append(f"{row}: {file}::{name} was {worst}")
    return out


def is_whole(config: pytest.Config) -> bool:
    """Whether nothing was chosen or left out on the command line."""
    chosen = (config.option.keyword, config.option.markexpr, config.option.deselect, config.option.ignore)
    testpaths = [str(p) for p in config.getini("testpaths")]
    return list(config.args) in (testpaths, []) and not any(chosen) and not config.getoption("lf", False)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[OUTCOMES] = {}
    config.stash[BROKEN] = []
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Controller(config), "named-tests-of-the-pages")


class _Controller:
    """Alive in the one process that sees every report."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        seen = self.config.stash[OUTCOMES]
        before = seen.get(report.nodeid, "passed")
        seen[report.nodeid] = max(before, report.outcome, key=lambda o: WORST.get(o, 2))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if session.config.option.collectonly or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        found = broken(named(session.config.rootpath), self.config.stash[OUTCOMES], whole=is_whole(session.config))
        self.config.stash[BROKEN] = found
        if found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        _tell(terminalreporter, self.config.stash[BROKEN])


def _tell(reporter: Any, sentences: Iterable[str]) -> None:
    for i, sentence in enumerate(sentences):
        if i == 0:
            reporter.section("named by a page, and not passed")
        reporter.line(sentence, red=True)
