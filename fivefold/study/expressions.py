"""The expression language of study files: cohort conditions, subgroups and derived variables. It computes, it never runs code.

An expression is read with Python's grammar, each node is looked up in a short list, and everything else is refused with its
position and what to write instead. Unknown stays unknown (Kleene's three-valued logic): a comparison with a missing value is
missing, `and` is false as soon as one side is false, `or` true as soon as one side is true. What has no finite value, such as
`log(0)` or a division by zero, is missing.

    age >= 18 and not (smoker == "current")
    where(sex == "female", 0.85, 1) * (140 - age) * weight / (72 * creatinine)
    cut(age, 50, 65)                    0 below 50, 1 from 50 to below 65, 2 from 65
"""

from __future__ import annotations

import ast

import numpy as np
import numpy.typing as npt

from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.expression_parts import KIND_WORDS, Compiler, Kind, Part, constant, level_index
from fivefold.study.expression_syntax import Fault, indent, sentence, shown, tree_of
from fivefold.study.table import Table

Floats = npt.NDArray[np.float64]


def check(text: str, dictionary: Dictionary, target: Variable | None = None) -> None:
    """Nothing if the expression can be computed from the dictionary's variables; else `StudyInvalid`, with the position.

    Without a `target` the expression must be a condition or a number. With one, its result must fit the target's type: a
    category takes `cut(...)`, `where(condition, "code", "code")` or another category with the same codes.
    """
    _compile(text, dictionary, target)


def check_condition(text: str, dictionary: Dictionary) -> None:
    """As `check`, for an expression that is true or false of each row. Raises `StudyInvalid`."""
    part = _compile(text, dictionary, None)
    if part.kind != "truth":
        raise sentence(text, 0, "this is a number, not a condition", f"Compare it, such as {shown(text)} > 0.")


def evaluate(text: str, table: Table, target: Variable | None = None) -> Floats:
    """The expression's value for each row: float64 of shape (rows,), conditions as 0 and 1, NaN where it is not known.

    With a category as `target` the values are indices of its `levels`. Raises `StudyInvalid` as `check` does.
    """
    part = _compile(text, table.dictionary, target)
    with np.errstate(all="ignore"):
        values = np.asarray(part.values(table), dtype=np.float64)
    return np.array(np.broadcast_to(values, (len(table),)))


def names(text: str) -> tuple[str, ...]:
    """The variables that an expression reads, each once, in order of appearance. Raises `StudyInvalid` if it cannot be read."""
    called = {id(n.func) for n in ast.walk(tree_of(text)) if isinstance(n, ast.Call)}
    found = [n for n in ast.walk(tree_of(text)) if isinstance(n, ast.Name) and id(n) not in called]
    found.sort(key=lambda n: n.col_offset)
    return tuple(dict.fromkeys(n.id for n in found))


def _compile(text: str, dictionary: Dictionary, target: Variable | None) -> Part:
    tree = tree_of(text)
    try:
        part = Compiler(dictionary, target).part(tree)
        return _fitted(tree, part, target)
    except Fault as fault:
        # Python counts in bytes of UTF-8, people in characters.
        column = getattr(fault.node, "col_offset", 0)
        at = len(text.strip().encode()[:column].decode(errors="ignore")) + indent(text)
        raise sentence(text, at, fault.what, fault.instead) from None


def _fitted(tree: ast.expr, part: Part, target: Variable | None) -> Part:
    """The whole expression's kind against what it is for."""
    if target is None:
        if part.kind in ("number", "truth"):
            return part
        raise Fault(tree, f"this is {KIND_WORDS[part.kind]}, not a condition or a number", 'Compare it, such as == "…".')
    name, kind = target.name, part.kind
    if target.type == "category":
        if kind in ("choice", "text") or (kind == "number" and _cut_edges(tree) == len(target.levels) - 1):
            return part if kind != "text" else Part("choice", constant(level_index(tree, target, part.text)))
        if kind == "category" and part.variable is not None and part.variable.levels == target.levels:
            return part
        raise Fault(
            tree,
            f"{name!r} is a category with {len(target.levels)} codes, and this does not give one",
            f'Write cut(x, …) with {len(target.levels) - 1} edges, or where(condition, "{target.levels[0]}", …).',
        )
    wanted: dict[str, tuple[Kind, ...]] = {
        "number": ("number", "truth"), "integer": ("number", "truth"), "boolean": ("truth",), "date": ("date",)
    }  # fmt: skip
    if kind not in wanted.get(target.type, ()):
        raise Fault(tree, f"{name!r} is declared as {target.type}, and this gives {KIND_WORDS[kind]}", "Change one of them.")
    return part


def _cut_edges(tree: ast.expr) -> int | None:
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "cut":
        return len(tree.args) - 1
    return None
