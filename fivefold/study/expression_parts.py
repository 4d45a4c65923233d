"""Each piece of an expression, checked and turned into a function of a table. What is not listed here is refused."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.expression_syntax import Fault, suggestion
from fivefold.study.table import Table

Floats = npt.NDArray[np.float64]
Kind = Literal["number", "truth", "category", "date", "text", "choice"]

EPOCH = date(1970, 1, 1)
RENAMED = {ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "**", ast.Is: "==", ast.IsNot: "!="}
UNKNOWN: dict[type[ast.expr], str] = {
    ast.Attribute: "a name with a dot", ast.Subscript: "a bracket", ast.Lambda: "lambda", ast.JoinedStr: "f before a text",
    ast.NamedExpr: "`:=`", ast.Dict: "a brace", ast.Starred: "`*` before a name",
}  # fmt: skip
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
KIND_WORDS: dict[Kind, str] = {
    "number": "a number", "truth": "a condition", "category": "a category",
    "date": "a date", "text": "a text", "choice": "a text",
}  # fmt: skip
FUNCTIONS = ("log", "exp", "sqrt", "abs", "min", "max", "round", "where", "cut", "ismissing")


@dataclass(frozen=True)
class Part:
    """A checked piece of an expression: its kind and how its values are computed from a table."""

    kind: Kind
    values: Callable[[Table], Floats]
    variable: Variable | None = None
    text: str = ""
    constant: float | None = None


@dataclass(frozen=True)
class Compiler:
    dictionary: Dictionary
    target: Variable | None

    def part(self, node: ast.expr) -> Part:
        """Check one node and say how to compute it."""
        match node:
            case ast.Constant():
                return self._literal(node)
            case ast.Name():
                return self._variable(node)
            case ast.UnaryOp(op=ast.Not()):
                inner = self._truth(node.operand)
                return Part("truth", lambda t: 1.0 - inner(t))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                inner_part = self.part(node.operand)
                number, fixed = self._as_number(node.operand, inner_part), inner_part.constant
                sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
                return Part("number", lambda t: sign * number(t), constant=None if fixed is None else sign * fixed)
            case ast.BoolOp():
                parts = [self._truth(v) for v in node.values]
                stop = 0.0 if isinstance(node.op, ast.And) else 1.0
                return Part("truth", lambda t: _kleene([p(t) for p in parts], stop))
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.Call():
                return self._call(node)
            case ast.IfExp():
                raise Fault(node, "`if` is not part of the language", "Write where(condition, a, b).")
            case ast.Tuple() | ast.List() | ast.Set():
                raise Fault(node, "a list stands only after `in`", 'Write x in ("a", "b").')
        what = UNKNOWN.get(type(node), "this")
        raise Fault(node, f"{what} is not part of the language", f"Use + - * / **, comparisons, and {', '.join(FUNCTIONS)}.")

    def _literal(self, node: ast.Constant) -> Part:
        value = node.value
        if isinstance(value, bool):
            return Part("truth", constant(float(value)), constant=float(value))
        if isinstance(value, (int, float)):
            try:
                number = float(value)
            except OverflowError:
                number = float("inf")
            if not np.isfinite(number):
                raise Fault(node, "the number is too large", "Write a finite number.")
            return Part("number", constant(number), constant=number)
        if isinstance(value, str):
            return Part("text", constant(float("nan")), text=value)
        if value is None:
            raise Fault(node, "None is not part of the language", "Write ismissing(x).")
        raise Fault(node, f"{value!r} is not a number or a text", "Write a number or a text in quotes.")

    def _variable(self, node: ast.Name) -> Part:
        name = node.id
        if name not in self.dictionary:
            if name in FUNCTIONS:
                raise Fault(node, f"{name} is a function", f"Write {name}(…).")
            if name.lower() in ("true", "false", "nan", "na", "null", "none"):
                right = name.lower().capitalize() if name.lower() in ("true", "false") else "ismissing(x)"
                raise Fault(node, f"{name} is not part of the language", f"Write {right}.")
            raise Fault(node, f"there is no variable {name!r}", suggestion(name, list(self.dictionary.variables)))
        variable = self.dictionary[name]
        if variable.type == "text":
            raise Fault(node, f"{name!r} is free text, which no expression reads", "Declare it as a category.")
        kinds: dict[str, Kind] = {"category": "category", "boolean": "truth", "date": "date"}
        return Part(kinds.get(variable.type, "number"), lambda t: t.columns[name], variable)

    def _number(self, node: ast.expr) -> Callable[[Table], Floats]:
        return self._as_number(node, self.part(node))

    def _as_number(self, node: ast.expr, part: Part) -> Callable[[Table], Floats]:
        if part.kind in ("number", "truth"):
            return part.values
        if part.kind == "category" and part.variable is not None:
            level = part.variable.levels[0] if part.variable.levels else "…"
            raise Fault(
                node, f"{part.variable.name!r} is a category, not a number", f'Write ({part.variable.name} == "{level}").'
            )
        if part.kind == "date":
            raise Fault(node, "a date is not a number", "Subtract another date: the difference is in days.")
        raise Fault(node, "a text is not a number", "Write the number without quotes.")

    def _truth(self, node: ast.expr) -> Callable[[Table], Floats]:
        part = self.part(node)
        if part.kind == "truth":
            return part.values
        instead = 'Compare it, such as == "…".' if part.kind == "category" else "Compare it, such as > 0."
        raise Fault(node, f"this is {KIND_WORDS[part.kind]}, not a condition", instead)

    def _arithmetic(self, node: ast.BinOp) -> Part:
        if type(node.op) in RENAMED:
            raise Fault(node.right, "this operator is not part of the language", f"Write `{RENAMED[type(node.op)]}`.")
        word = WORDS.get(type(node.op))
        if word is None:
            raise Fault(node.right, "this operator is not part of the language", "Use + - * / **.")
        # Each side is checked once: twice at every level would double the work with every level.
        left, right = self.part(node.left), self.part(node.right)
        if word == "-" and left.kind == right.kind == "date":
            return Part("number", lambda t: left.values(t) - right.values(t))
        if word in ("+", "-") and left.kind == "date" and right.kind == "number":
            days = 1.0 if word == "+" else -1.0
            return Part("date", lambda t: left.values(t) + days * right.values(t))
        a, b = self._as_number(node.left, left), self._as_number(node.right, right)
        return Part("number", lambda t: _strict(NUMBERS[word], a(t), b(t)))

    def _comparison(self, node: ast.Compare) -> Part:
        # Every side is checked and computed once, however many comparisons it takes part in.
        nodes, parts, tests = [node.left], [self.part(node.left)], []
        for op, right in zip(node.ops, node.comparators, strict=True):
            at = len(parts) - 1
            if isinstance(op, (ast.In, ast.NotIn)):
                if not isinstance(right, (ast.Tuple, ast.List, ast.Set)) or not right.elts or len(node.ops) > 1:
                    raise Fault(right, "after `in` stands a list", 'Write x in ("a", "b").')
                members = [self.part(e) for e in right.elts]
                return _membership(parts[0], members, nodes[0], right.elts, isinstance(op, ast.NotIn))
            if type(op) in RENAMED:
                nothing = isinstance(right, ast.Constant) and right.value is None
                instead = "ismissing(x)" if nothing else RENAMED[type(op)]
                raise Fault(right, "`is` is not part of the language", f"Write `{instead}`.")
            nodes.append(right)
            parts.append(self.part(right))
            tests.append((at, _test(nodes[at], parts[at], WORDS[type(op)], right, parts[at + 1])))

        def values(table: Table) -> Floats:
            sides = [p.values(table) for p in parts]
            return _kleene([test(sides[at], sides[at + 1]) for at, test in tests], 0.0)

        return Part("truth", values)

    def _call(self, node: ast.Call) -> Part:
        if not isinstance(node.func, ast.Name):
            raise Fault(node, "only the language's own functions can be called", f"Use {', '.join(FUNCTIONS)}.")
        name, given = node.func.id, node.args
        if name not in FUNCTIONS:
            raise Fault(node, f"there is no function {name!r}", suggestion(name, FUNCTIONS))
        if node.keywords or any(isinstance(a, ast.Starred) for a in given):
            raise Fault(node, f"{name} takes plain arguments", f"Write {_usage(name)}.")
        most = {"min": 20, "max": 20, "cut": 40, "where": 3, "round": 2}.get(name, 1)
        least = {"min": 2, "max": 2, "cut": 2, "where": 3}.get(name, 1)
        if not least <= len(given) <= most:
            raise Fault(node, f"{name} takes other arguments", f"Write {_usage(name)}.")
        if name == "ismissing":
            values = self.part(given[0]).values
            return Part("truth", lambda t: np.isnan(values(t)).astype(np.float64))
        if name == "where":
            return self._where(given[0], given[1], given[2])
        numbers = [self._number(a) for a in (given if name in ("min", "max") else given[:1])]
        first = numbers[0]
        if name == "cut":
            edges = [self._fixed(a, "an edge") for a in given[1:]]
            if any(b <= a for a, b in pairwise(edges)):
                raise Fault(given[1], "the edges of cut do not ascend", "Write them in ascending order.")
            return Part("number", lambda t: _cut(first(t), edges))
        if name == "round":
            digits = self._fixed(given[1], "the number of digits") if len(given) == 2 else 0.0
            if digits != int(digits) or not 0 <= digits <= 15:
                raise Fault(given[1], "the number of digits is 0 to 15", "Write round(x, 2).")
            return Part("number", lambda t: np.round(first(t), int(digits)))
        if name in ("min", "max"):
            return Part("number", lambda t: _folded(NUMBERS[name], [n(t) for n in numbers]))
        return Part("number", lambda t: _finite(NUMBERS[name](first(t))))

    def _where(self, condition: ast.expr, a: ast.expr, b: ast.expr) -> Part:
        chosen, yes, no = self._truth(condition), self.part(a), self.part(b)
        kind: Kind
        if yes.kind in ("text", "choice") or no.kind in ("text", "choice"):
            if self.target is None or self.target.type != "category":
                raise Fault(a, "where gives a text only to a derived category", "Write numbers here.")
            kind = "choice"
            yes, no = self._choice(a, yes), self._choice(b, no)
        elif yes.kind == no.kind and yes.kind in ("truth", "date"):
            kind = yes.kind
        elif yes.kind == no.kind == "category":
            if yes.variable is None or no.variable is None or yes.variable.levels != no.variable.levels:
                raise Fault(b, "the two categories of where have different codes", "Choose between like categories.")
            return Part("category", lambda t: _where(chosen(t), yes.values(t), no.values(t)), yes.variable)
        else:
            kind = "number"
            yes, no = Part(kind, self._as_number(a, yes)), Part(kind, self._as_number(b, no))
        return Part(kind, lambda t: _where(chosen(t), yes.values(t), no.values(t)))

    def _choice(self, node: ast.expr, part: Part) -> Part:
        assert self.target is not None
        if part.kind == "text":
            return Part("choice", constant(level_index(node, self.target, part.text)))
        same = part.variable is not None and part.variable.levels == self.target.levels
        if part.kind == "choice" or same:
            return part
        raise Fault(node, f"{self.target.name!r} is a category, and this is {KIND_WORDS[part.kind]}", "Write a code in quotes.")

    def _fixed(self, node: ast.expr, what: str) -> float:
        fixed = self.part(node).constant
        if fixed is None:
            raise Fault(node, f"{what} must be a number, not a formula", "Write the number itself.")
        return fixed


Test = Callable[[Floats, Floats], Floats]


def _membership(left: Part, members: list[Part], node: ast.expr, nodes: list[ast.expr], negated: bool) -> Part:
    tests = [_test(node, left, "==", n, m) for n, m in zip(nodes, members, strict=True)]

    def values(table: Table) -> Floats:
        mine = left.values(table)
        found = _kleene([test(mine, m.values(table)) for test, m in zip(tests, members, strict=True)], 1.0)
        return 1.0 - found if negated else found

    return Part("truth", values)


def _test(a: ast.expr, left: Part, word: str, b: ast.expr, right: Part) -> Test:
    """The comparison of two sides as a function of their values; a text is looked up among the other side's codes."""
    operation = COMPARISONS[word]
    if left.kind == "text" and right.kind in ("category", "date"):
        fixed = _looked_up(b, right, word, a, left)
        return lambda x, y: _compared(operation, np.full_like(y, fixed), y)
    if left.kind in ("category", "date") and right.kind == "text":
        fixed = _looked_up(a, left, word, b, right)
        return lambda x, y: _compared(operation, x, np.full_like(x, fixed))
    kinds = {left.kind, right.kind}
    if kinds <= {"number", "truth"} or kinds == {"date"}:
        return lambda x, y: _compared(operation, x, y)
    if kinds == {"category"} and left.variable is not None and right.variable is not None:
        if left.variable.levels == right.variable.levels and word in ("==", "!="):
            return lambda x, y: _compared(operation, x, y)
        raise Fault(b, "two categories are compared that have different codes or no order", "Compare each with a code.")
    if "category" in kinds:
        (category, other) = (left, b) if left.kind == "category" else (right, a)
        name = category.variable.name if category.variable is not None else "this"
        if isinstance(other, ast.Constant):
            raise Fault(other, f"{name!r} is a category", f'Put its code in quotes: "{other.value!r}".')
        raise Fault(other, f"{name!r} is compared with what is none of its codes", "Compare it with a code.")
    if "text" in kinds and len(kinds) == 2:
        (other_kind,) = kinds - {"text"}
        instead = "Write it alone, or `not` before it." if other_kind == "truth" else "Write the number without quotes."
        raise Fault(b if right.kind == "text" else a, f"{KIND_WORDS[other_kind]} is compared with a text", instead)
    raise Fault(b, f"{KIND_WORDS[left.kind]} is compared with {KIND_WORDS[right.kind]}", "Compare like with like.")


def _looked_up(node: ast.expr, part: Part, word: str, other: ast.expr, text: Part) -> float:
    """A text as the number that stands for it: the index of a category's code, the day of a date."""
    if part.kind == "date":
        return _days(other, text.text)
    if part.variable is None:
        raise Fault(node, "this category has no codes of its own", "Compare the variable itself.")
    if word not in ("==", "!="):
        raise Fault(node, f"{part.variable.name!r} is a category and has no order", 'Write in ("…", "…").')
    return level_index(other, part.variable, text.text)


def _usage(name: str) -> str:
    return {
        "where": "where(condition, a, b)", "cut": "cut(x, edge, …)", "round": "round(x, 2)",
        "min": "min(a, b)", "max": "max(a, b)",
    }.get(name, f"{name}(x)")  # fmt: skip


def level_index(node: ast.AST, variable: Variable, text: str) -> float:
    """The index of a code, or of the code with this label."""
    if text in variable.levels:
        return float(variable.levels.index(text))
    labels = list(variable.codes.values())
    if text in labels:
        return float(labels.index(text))
    if text in variable.missing_codes:
        raise Fault(node, f"{text!r} means that {variable.name!r} is not known", f"Write ismissing({variable.name}).")
    raise Fault(node, f"{variable.name!r} has no code or label {text!r}", suggestion(text, [*variable.levels, *labels]))


def _days(node: ast.AST, text: str) -> float:
    try:
        return float((date.fromisoformat(text) - EPOCH).days)
    except ValueError:
        raise Fault(node, f"{text!r} is not a date", 'Write it as "2020-12-31".') from None


# ---- arithmetic in which unknown stays unknown ----------------------------------------------------------------------
def constant(value: float) -> Callable[[Table], Floats]:
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
