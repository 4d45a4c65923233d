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
import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from fivefold.errors import StudyInvalid
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.table import Table

Floats = npt.NDArray[np.float64]
Kind = Literal["number", "truth", "category", "date", "text", "choice"]

MAX_LENGTH = 2000
MAX_DEPTH = 40
MAX_NODES = 400
EPOCH = date(1970, 1, 1)
SPELLINGS = {"&&": "and", "||": "or", "<>": "!=", "===": "==", "=>": ">=", "=<": "<="}
RENAMED = {ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "**", ast.Is: "==", ast.IsNot: "!="}
WORDS: dict[type[ast.operator] | type[ast.cmpop], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
NUMBERS: dict[str, Callable[..., Floats]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "**": np.power,
    "log": np.log, "exp": np.exp, "sqrt": np.sqrt, "abs": np.abs, "min": np.minimum, "max": np.maximum,
}  # fmt: skip
COMPARISONS: dict[str, Callable[..., npt.NDArray[np.bool_]]] = {
    "==": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
}  # fmt: skip
FUNCTIONS = ("log", "exp", "sqrt", "abs", "min", "max", "round", "where", "cut", "ismissing")


class _Fault(Exception):
    """A fault at a node: what is wrong and what to write instead."""

    def __init__(self, node: ast.AST | None, what: str, instead: str = "") -> None:
        self.node, self.what, self.instead = node, what, instead


@dataclass(frozen=True)
class _Part:
    """A checked piece of an expression: its kind and how its values are computed from a table."""

    kind: Kind
    values: Callable[[Table], Floats]
    variable: Variable | None = None
    text: str = ""
    constant: float | None = None


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
        raise _sentence(text, 0, "this is a number, not a condition", f"Compare it, such as {_shown(text)} > 0.")


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
    called = {id(n.func) for n in ast.walk(_tree(text)) if isinstance(n, ast.Call)}
    found = [n for n in ast.walk(_tree(text)) if isinstance(n, ast.Name) and id(n) not in called]
    found.sort(key=lambda n: n.col_offset)
    return tuple(dict.fromkeys(n.id for n in found))


def suggestion(word: str, known: Sequence[str]) -> str:
    """`Did you mean 'age'?` where a known word is near; else the list of what is known."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    near = near or [k for k in known if k.lower() == word.lower()]
    if near:
        return f"Did you mean {near[0]!r}?"
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"Write one of: {shown}." if known else ""


# ---- from text to a tree --------------------------------------------------------------------------------------------
@lru_cache(maxsize=512)
def _tree(text: str) -> ast.expr:
    """Python's tree of an expression, with its size and depth checked before anything walks it recursively."""
    flat = text.replace("\n", " ").replace("\t", " ").replace("\r", " ")
    if not flat.strip():
        raise _sentence(text, 0, "the expression is empty", 'Write a condition such as age >= 18, or "leave it out".')
    if len(flat) > MAX_LENGTH:
        raise _sentence(
            text, 0, f"the expression is longer than {MAX_LENGTH} characters", "Derive a variable for a part of it."
        )
    _spelling(text, flat)
    try:
        tree = ast.parse("(" + flat + ")", mode="eval").body
    except SyntaxError as error:
        at = max((error.offset or 2) - 2, 0)
        assign = re.search(r"(?<![=<>!])=(?!=)", re.sub(r"\"[^\"]*\"|'[^']*'", lambda m: " " * len(m[0]), flat))
        if assign:
            raise _sentence(text, assign.start(), "one `=` compares nothing", "Write `==`.") from error
        raise _sentence(text, at, f"the expression cannot be read: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise _sentence(text, 0, "the expression cannot be read", "Write it with fewer parentheses.") from error
    level: list[ast.AST] = [tree]
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            raise _sentence(text, 0, "the expression is too large", "Derive a variable for a part of it.")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return tree


def _spelling(text: str, flat: str) -> None:
    """What Python's reader would misread or only warn about."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", lambda m: " " * len(m[0]), flat)
    for wrong, right in SPELLINGS.items():
        if wrong in bare:
            raise _sentence(text, bare.index(wrong), f"`{wrong}` is not part of the language", f"Write `{right}`.")
    if "\\" in flat or "#" in bare:
        at = min(i for i in (flat.find("\\"), bare.find("#")) if i >= 0)
        raise _sentence(text, at, f"`{flat[at]}` is not part of the language", "Take it out.")
    glued = re.search(r"(?<![\w.])[\d.]*\d(?![eE][+-]?\d)[A-Za-z_]", bare)
    if glued:
        raise _sentence(text, glued.start(), "a number runs into a word", "Put a space or an operator between them.")


def _sentence(text: str, at: int, what: str, instead: str = "") -> StudyInvalid:
    return StudyInvalid(f"in {_shown(text)} at character {at + 1}: {what}", help=instead or None)


def _shown(text: str) -> str:
    flat = " ".join(text.split())
    return f"`{flat if len(flat) <= 60 else flat[:57] + '…'}`"


# ---- from a tree to a function --------------------------------------------------------------------------------------
def _compile(text: str, dictionary: Dictionary, target: Variable | None) -> _Part:
    tree = _tree(text)
    try:
        part = _Compiler(dictionary, target).part(tree)
        return _fitted(tree, part, target)
    except _Fault as fault:
        column = getattr(fault.node, "col_offset", 1)
        at = len(("(" + text).encode()[:column].decode(errors="ignore")) - 1
        raise _sentence(text, max(at, 0), fault.what, fault.instead) from None


def _fitted(tree: ast.expr, part: _Part, target: Variable | None) -> _Part:
    """The whole expression's kind against what it is for."""
    if target is None:
        if part.kind in ("number", "truth"):
            return part
        what = {"category": "a category", "date": "a date", "text": "text", "choice": "text"}[part.kind]
        raise _Fault(tree, f"this is {what}, not a condition or a number", 'Compare it, such as == "…".')
    name, kind = target.name, part.kind
    if target.type == "category":
        if kind in ("choice", "text") or (kind == "number" and _cut_edges(tree) == len(target.levels) - 1):
            return part if kind != "text" else _Part("choice", _constant(_level(tree, target, part.text)))
        if kind == "category" and part.variable is not None and part.variable.levels == target.levels:
            return part
        raise _Fault(
            tree,
            f"{name!r} is a category with {len(target.levels)} codes, and this does not give one",
            f'Write cut(x, …) with {len(target.levels) - 1} edges, or where(condition, "{target.levels[0]}", …).',
        )
    wanted: dict[str, tuple[Kind, ...]] = {
        "number": ("number", "truth"), "integer": ("number", "truth"), "boolean": ("truth",), "date": ("date",)
    }  # fmt: skip
    if kind not in wanted.get(target.type, ()):
        raise _Fault(
            tree, f"{name!r} is declared as {target.type}, and this gives a {kind}", "Change the type or the expression."
        )
    return part


def _cut_edges(tree: ast.expr) -> int | None:
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "cut":
        return len(tree.args) - 1
    return None


@dataclass(frozen=True)
class _Compiler:
    dictionary: Dictionary
    target: Variable | None

    def part(self, node: ast.expr) -> _Part:
        """Check one node and say how to compute it."""
        match node:
            case ast.Constant():
                return self._literal(node)
            case ast.Name():
                return self._variable(node)
            case ast.UnaryOp(op=ast.Not()):
                inner = self._truth(node.operand)
                return _Part("truth", lambda t: 1.0 - inner(t))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                number = self._number(node.operand)
                sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
                constant = self.part(node.operand).constant
                return _Part("number", lambda t: sign * number(t), constant=None if constant is None else sign * constant)
            case ast.BoolOp():
                parts = [self._truth(v) for v in node.values]
                stop = 0.0 if isinstance(node.op, ast.And) else 1.0
                return _Part("truth", lambda t: _kleene([p(t) for p in parts], stop))
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.Call():
                return self._call(node)
            case ast.IfExp():
                raise _Fault(node, "`if` is not part of the language", "Write where(condition, a, b).")
            case ast.Tuple() | ast.List() | ast.Set():
                raise _Fault(node, "a list stands only after `in`", 'Write x in ("a", "b").')
        raise _Fault(node, f"a {type(node).__name__.lower()} is not part of the language", f"Use {', '.join(FUNCTIONS)}.")

    def _literal(self, node: ast.Constant) -> _Part:
        value = node.value
        if isinstance(value, bool):
            return _Part("truth", _constant(float(value)), constant=float(value))
        if isinstance(value, (int, float)):
            try:
                number = float(value)
            except OverflowError:
                number = float("inf")
            if not np.isfinite(number):
                raise _Fault(node, "the number is too large", "Write a finite number.")
            return _Part("number", _constant(number), constant=number)
        if isinstance(value, str):
            return _Part("text", _constant(float("nan")), text=value)
        if value is None:
            raise _Fault(node, "None is not part of the language", "Write ismissing(x).")
        raise _Fault(node, f"{value!r} is not a number or a text", "Write a number or a text in quotes.")

    def _variable(self, node: ast.Name) -> _Part:
        name = node.id
        if name not in self.dictionary:
            if name in FUNCTIONS:
                raise _Fault(node, f"{name} is a function", f"Write {name}(…).")
            if name.lower() in ("true", "false", "nan", "na", "null", "none"):
                right = name.lower().capitalize() if name.lower() in ("true", "false") else "ismissing(x)"
                raise _Fault(node, f"{name} is not part of the language", f"Write {right}.")
            raise _Fault(node, f"there is no variable {name!r}", suggestion(name, list(self.dictionary.variables)))
        variable = self.dictionary[name]
        if variable.type == "text":
            raise _Fault(
                node, f"{name!r} is free text, which an expression cannot read", "Declare it as a category with codes."
            )
        kinds: dict[str, Kind] = {"category": "category", "boolean": "truth", "date": "date"}
        return _Part(kinds.get(variable.type, "number"), lambda t: t.columns[name], variable)

    def _number(self, node: ast.expr) -> Callable[[Table], Floats]:
        part = self.part(node)
        if part.kind in ("number", "truth"):
            return part.values
        if part.kind == "category" and part.variable is not None:
            level = part.variable.levels[0] if part.variable.levels else "…"
            raise _Fault(
                node, f"{part.variable.name!r} is a category, not a number", f'Write ({part.variable.name} == "{level}").'
            )
        if part.kind == "date":
            raise _Fault(node, "a date is not a number", "Subtract another date: the difference is in days.")
        raise _Fault(node, "a text is not a number", "Write the number without quotes.")

    def _truth(self, node: ast.expr) -> Callable[[Table], Floats]:
        part = self.part(node)
        if part.kind == "truth":
            return part.values
        instead = 'Compare it, such as == "…".' if part.kind == "category" else "Compare it, such as > 0."
        raise _Fault(node, f"this is a {part.kind}, not a condition", instead)

    def _arithmetic(self, node: ast.BinOp) -> _Part:
        if type(node.op) in RENAMED:
            raise _Fault(node.right, "this operator is not part of the language", f"Write `{RENAMED[type(node.op)]}`.")
        word = WORDS.get(type(node.op))
        if word is None:
            raise _Fault(node.right, "this operator is not part of the language", "Use + - * / **.")
        if word == "-":
            left, right = self.part(node.left), self.part(node.right)
            if left.kind == right.kind == "date":
                return _Part("number", lambda t: left.values(t) - right.values(t))
        if word in "+-":
            left, right = self.part(node.left), self.part(node.right)
            if left.kind == "date" and right.kind == "number":
                days = 1.0 if word == "+" else -1.0
                return _Part("date", lambda t: left.values(t) + days * right.values(t))
        a, b = self._number(node.left), self._number(node.right)
        return _Part("number", lambda t: _strict(NUMBERS[word], a(t), b(t)))

    def _comparison(self, node: ast.Compare) -> _Part:
        sides = [node.left, *node.comparators]
        pairs = [self._pair(node, a, op, b) for a, op, b in zip(sides, node.ops, sides[1:], strict=False)]
        return pairs[0] if len(pairs) == 1 else _Part("truth", lambda t: _kleene([p.values(t) for p in pairs], 0.0))

    def _pair(self, node: ast.Compare, a: ast.expr, op: ast.cmpop, b: ast.expr) -> _Part:
        if isinstance(op, (ast.In, ast.NotIn)):
            if not isinstance(b, (ast.Tuple, ast.List, ast.Set)) or not b.elts:
                raise _Fault(b, "after `in` stands a list", 'Write x in ("a", "b").')
            alike = [self._pair(node, a, ast.Eq(), e).values for e in b.elts]
            if isinstance(op, ast.In):
                return _Part("truth", lambda t: _kleene([p(t) for p in alike], 1.0))
            return _Part("truth", lambda t: 1.0 - _kleene([p(t) for p in alike], 1.0))
        if type(op) in RENAMED:
            raise _Fault(b, "`is` is not part of the language", f"Write `{RENAMED[type(op)]}`.")
        word = WORDS[type(op)]
        left, right = self._sides(a, self.part(a), word, b, self.part(b))
        return _Part("truth", lambda t: _compared(COMPARISONS[word], left(t), right(t)))

    def _sides(
        self, a: ast.expr, left: _Part, word: str, b: ast.expr, right: _Part
    ) -> tuple[Callable[[Table], Floats], Callable[[Table], Floats]]:
        """Both sides of a comparison as comparable numbers."""
        kinds = {left.kind, right.kind}
        if kinds <= {"number", "truth"} or kinds == {"date"}:
            return left.values, right.values
        if left.kind == "text" and right.kind != "text":
            second, first = self._sides(b, right, word, a, left)
            return first, second
        if left.kind == "date" and right.kind == "text":
            return left.values, _constant(_days(b, right.text))
        if left.kind == "category" and left.variable is not None:
            if word not in ("==", "!="):
                raise _Fault(a, f"{left.variable.name!r} is a category and has no order", 'Write in ("…", "…").')
            if right.kind == "text":
                return left.values, _constant(_level(b, left.variable, right.text))
            if right.kind == "category" and right.variable is not None and right.variable.levels == left.variable.levels:
                return left.values, right.values
            if isinstance(b, ast.Constant):
                raise _Fault(b, f"{left.variable.name!r} is a category", f'Put its code in quotes: "{b.value}".')
            raise _Fault(
                b, f"{left.variable.name!r} is compared with something else than its own codes", "Compare it with a code."
            )
        if left.kind in ("number", "truth") and right.kind == "text":
            instead = (
                "Write the variable alone, or `not` before it." if left.kind == "truth" else "Write the number without quotes."
            )
            raise _Fault(b, f"a {left.kind} is compared with a text", instead)
        if right.kind == "category":
            return self._sides(b, right, word, a, left)[::-1]
        raise _Fault(b, f"a {left.kind} is compared with a {right.kind}", "Compare like with like.")

    def _call(self, node: ast.Call) -> _Part:
        if not isinstance(node.func, ast.Name):
            raise _Fault(node, "only the language's own functions can be called", f"Use {', '.join(FUNCTIONS)}.")
        name, given = node.func.id, node.args
        if name not in FUNCTIONS:
            raise _Fault(node, f"there is no function {name!r}", suggestion(name, FUNCTIONS))
        if node.keywords or any(isinstance(a, ast.Starred) for a in given):
            raise _Fault(node, f"{name} takes plain arguments", f"Write {_usage(name)}.")
        most = {"min": 20, "max": 20, "cut": 40, "where": 3, "round": 2}.get(name, 1)
        least = {"min": 2, "max": 2, "cut": 2, "where": 3}.get(name, 1)
        if not least <= len(given) <= most:
            raise _Fault(node, f"{name} takes other arguments", f"Write {_usage(name)}.")
        if name == "ismissing":
            values = self.part(given[0]).values
            return _Part("truth", lambda t: np.isnan(values(t)).astype(np.float64))
        if name == "where":
            return self._where(given[0], given[1], given[2])
        numbers = [self._number(a) for a in (given if name in ("min", "max") else given[:1])]
        first = numbers[0]
        if name == "cut":
            edges = [self._fixed(a, "an edge") for a in given[1:]]
            if any(b <= a for a, b in zip(edges, edges[1:], strict=False)):
                raise _Fault(given[1], "the edges of cut do not ascend", "Write them in ascending order.")
            return _Part("number", lambda t: _cut(first(t), edges))
        if name == "round":
            digits = self._fixed(given[1], "the number of digits") if len(given) == 2 else 0.0
            if digits != int(digits) or not 0 <= digits <= 15:
                raise _Fault(given[1], "the number of digits is 0 to 15", "Write round(x, 2).")
            return _Part("number", lambda t: np.round(first(t), int(digits)))
        if name in ("min", "max"):
            return _Part("number", lambda t: _folded(NUMBERS[name], [n(t) for n in numbers]))
        return _Part("number", lambda t: _finite(NUMBERS[name](first(t))))

    def _where(self, condition: ast.expr, a: ast.expr, b: ast.expr) -> _Part:
        chosen, yes, no = self._truth(condition), self.part(a), self.part(b)
        kind: Kind
        if yes.kind in ("text", "choice") or no.kind in ("text", "choice"):
            if self.target is None or self.target.type != "category":
                raise _Fault(a, "where gives a text only to a derived category", "Write numbers here.")
            kind = "choice"
            yes, no = self._choice(a, yes), self._choice(b, no)
        elif yes.kind == no.kind and yes.kind in ("truth", "date"):
            kind = yes.kind
        elif yes.kind == no.kind == "category":
            if yes.variable is None or no.variable is None or yes.variable.levels != no.variable.levels:
                raise _Fault(b, "the two categories of where have different codes", "Choose between like categories.")
            return _Part("category", lambda t: _where(chosen(t), yes.values(t), no.values(t)), yes.variable)
        else:
            kind, yes, no = "number", _Part("number", self._number(a)), _Part("number", self._number(b))
        return _Part(kind, lambda t: _where(chosen(t), yes.values(t), no.values(t)))

    def _choice(self, node: ast.expr, part: _Part) -> _Part:
        assert self.target is not None
        if part.kind == "text":
            return _Part("choice", _constant(_level(node, self.target, part.text)))
        same = part.variable is not None and part.variable.levels == self.target.levels
        if part.kind == "choice" or same:
            return part
        raise _Fault(
            node, f"{self.target.name!r} is a category, and this is a {part.kind}", "Write one of its codes in quotes."
        )

    def _fixed(self, node: ast.expr, what: str) -> float:
        constant = self.part(node).constant
        if constant is None:
            raise _Fault(node, f"{what} must be a number, not a formula", "Write the number itself.")
        return constant


def _usage(name: str) -> str:
    return {
        "where": "where(condition, a, b)", "cut": "cut(x, edge, …)", "round": "round(x, 2)",
        "min": "min(a, b)", "max": "max(a, b)",
    }.get(name, f"{name}(x)")  # fmt: skip


def _level(node: ast.AST, variable: Variable, text: str) -> float:
    """The index of a code, or of the code with this label."""
    if text in variable.levels:
        return float(variable.levels.index(text))
    labels = list(variable.codes.values())
    if text in labels:
        return float(labels.index(text))
    if text in variable.missing_codes:
        raise _Fault(node, f"{text!r} means that {variable.name!r} is not known", f"Write ismissing({variable.name}).")
    raise _Fault(node, f"{variable.name!r} has no code or label {text!r}", suggestion(text, [*variable.levels, *labels]))


def _days(node: ast.AST, text: str) -> float:
    try:
        return float((date.fromisoformat(text) - EPOCH).days)
    except ValueError:
        raise _Fault(node, f"{text!r} is not a date", 'Write it as "2020-12-31".') from None


# ---- arithmetic in which unknown stays unknown ----------------------------------------------------------------------
def _constant(value: float) -> Callable[[Table], Floats]:
    return lambda table: np.full(len(table), value)


def _finite(values: Floats) -> Floats:
    """What has no finite value is not known."""
    return np.where(np.isfinite(values), values, np.nan)


def _strict(operation: Callable[..., Floats], a: Floats, b: Floats) -> Floats:
    # NumPy says nan ** 0 = 1 and 1 ** nan = 1; here unknown stays unknown.
    return np.where(np.isnan(a) | np.isnan(b), np.nan, _finite(operation(a, b)))


def _compared(operation: Callable[..., npt.NDArray[np.bool_]], a: Floats, b: Floats) -> Floats:
    return np.where(np.isnan(a) | np.isnan(b), np.nan, operation(a, b).astype(np.float64))


def _kleene(parts: list[Floats], stop: float) -> Floats:
    """`and` with stop 0, `or` with stop 1: `stop` wins over unknown, unknown wins over the rest."""
    decided = np.any([p == stop for p in parts], axis=0)
    unknown = np.any([np.isnan(p) for p in parts], axis=0)
    return np.where(decided, stop, np.where(unknown, np.nan, 1.0 - stop))


def _where(chosen: Floats, yes: Floats, no: Floats) -> Floats:
    return np.where(np.isnan(chosen), np.nan, np.where(chosen == 1.0, yes, no))


def _cut(values: Floats, edges: list[float]) -> Floats:
    index = np.searchsorted(np.asarray(edges), values, side="right").astype(np.float64)
    return np.where(np.isnan(values), np.nan, index)


def _folded(operation: Callable[..., Floats], parts: list[Floats]) -> Floats:
    out = parts[0]
    for part in parts[1:]:
        out = operation(out, part)
    return out
