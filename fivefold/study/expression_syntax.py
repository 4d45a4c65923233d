"""From the text of an expression to a small, checked tree; and the faults found on the way, each with its position."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Sequence
from functools import lru_cache

from fivefold.errors import StudyInvalid

MAX_LENGTH = 2000
MAX_DEPTH = 40
MAX_NODES = 400
SPELLINGS = {"&&": "and", "||": "or", "<>": "!=", "===": "==", "=>": ">=", "=<": "<=", ":=": "=="}


class Fault(Exception):
    """A fault at a node: what is wrong and what to write instead."""

    def __init__(self, node: ast.AST | None, what: str, instead: str = "") -> None:
        self.node, self.what, self.instead = node, what, instead


@lru_cache(maxsize=512)
def tree_of(text: str) -> ast.expr:
    """Python's tree of an expression, with its size and depth checked before anything walks it recursively."""
    flat = text.replace("\n", " ").replace("\t", " ").replace("\r", " ")
    if not flat.strip():
        raise sentence(text, 0, "the expression is empty", "Write a condition such as age >= 18.")
    if len(flat) > MAX_LENGTH:
        raise sentence(text, 0, f"it is longer than {MAX_LENGTH} characters", "Derive a variable for a part of it.")
    _spelling(text, flat)
    try:
        tree = ast.parse(flat.strip(), mode="eval").body
    except SyntaxError as error:
        # Python gives no place to an expression that ends too early: it is the end.
        at = error.offset - 1 + indent(text) if error.offset else len(text.rstrip())
        assign = re.search(r"(?<![=<>!])=(?!=)", re.sub(r"\"[^\"]*\"|'[^']*'", lambda m: " " * len(m[0]), flat))
        if assign:
            raise sentence(text, assign.start(), "one `=` compares nothing", "Write `==`.") from error
        raise sentence(
            text, at, f"the expression cannot be read: {error.msg}", "Write a condition such as age >= 18 and not smoker."
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise sentence(text, 0, "the expression cannot be read", "Write it with fewer parentheses.") from error
    level: list[ast.AST] = [tree]
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            raise sentence(text, 0, "the expression is too large", "Derive a variable for a part of it.")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return tree


def indent(text: str) -> int:
    """How many characters of white space stand before the expression."""
    return len(text) - len(text.lstrip())


def _spelling(text: str, flat: str) -> None:
    """What Python's reader would misread or only warn about."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", lambda m: " " * len(m[0]), flat)
    for wrong, right in SPELLINGS.items():
        if wrong in bare:
            raise sentence(text, bare.index(wrong), f"`{wrong}` is not part of the language", f"Write `{right}`.")
    if "\\" in flat or "#" in bare:
        at = min(i for i in (flat.find("\\"), bare.find("#")) if i >= 0)
        raise sentence(text, at, f"`{flat[at]}` is not part of the language", "Take it out.")
    glued = re.search(r"(?<![\w.])[\d.]*\d(?![eE][+-]?\d)[A-Za-z_]", bare)
    if glued:
        raise sentence(text, glued.start(), "a number runs into a word", "Put a space or an operator between them.")


def sentence(text: str, at: int, what: str, instead: str = "") -> StudyInvalid:
    return StudyInvalid(f"in {shown(text)} at character {at + 1}: {what}", help=instead or None)


def shown(text: str) -> str:
    flat = " ".join(text.split())
    return f"`{flat if len(flat) <= 60 else flat[:57] + '…'}`"


def suggestion(word: str, known: Sequence[str]) -> str:
    """`Did you mean 'age'?` where a known word is near; else the list of what is known."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    near = near or [k for k in known if k.lower() == word.lower()]
    if near:
        return f"Did you mean {near[0]!r}?"
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"Write one of: {shown}." if known else ""
