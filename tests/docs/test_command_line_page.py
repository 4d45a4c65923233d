"""The reference of the command line says what the commands say."""

from __future__ import annotations

import re

from fivefold.cli.main import NOUNS
from tools.command_line_page import PAGE, page


def test_the_page_is_the_commands_own() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m tools.command_line_page"


def test_every_noun_and_every_argument_is_explained() -> None:
    text = page()
    assert [name for name in re.findall(r"^## (\S+)$", text, re.MULTILINE) if name in NOUNS] == list(NOUNS)
    unexplained = [line for line in text.split("## Exit codes")[0].splitlines() if re.fullmatch(r"\| `.*` \|\s*\|", line)]
    assert not unexplained
