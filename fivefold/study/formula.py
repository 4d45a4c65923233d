"""Formulas of study files: `bmi ~ age + sex`, `Surv(time, status) ~ age * sex + strata(site)`. They name variables, no more.

    formula  = response "~" sum            response = name | Surv(time, status) | Surv(start, stop, status)
    sum      = ["-"] product {("+" | "-") product}       only 1 is ever taken away: `- 1` is a model without intercept
    product  = crossing {"*" crossing}     a * b is a + b + a:b
    crossing = atom {":" atom}             a:b is the interaction alone
    atom     = name | 0 | 1 | "(" sum ")" | strata(name, ...)

The notation is Wilkinson and Rogers' (Applied Statistics 22:392, 1973). `site` is the study's own word: fixed effects by site,
or `strata(site)`. What has to be computed (logarithms, cuts, squares) is a derived variable, so that it has a range.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from fivefold.errors import FormulaInvalid

SITE = "site"
LONGEST = 4000
DEEPEST = 20
WIDEST = 500

TOKEN = re.compile(r"\s*(?:(?P<name>[^\W\d]\w*)|(?P<number>\d+(?:\.\d*)?)|(?P<sign>[~+*:(),]|-))")
FUNCTIONS = {
    "log": "log(x)", "log10": "log(x) / log(10)", "exp": "exp(x)", "sqrt": "sqrt(x)", "poly": "x ** 2", "factor": "", "C": "",
    "bs": "", "ns": "", "scale": "", "cut": "cut(x, 50, 65)", "offset": "", "cluster": "", "frailty": "", "tt": "",
}  # fmt: skip


@dataclass(frozen=True)
class Survival:
    """The response of a survival model: `time` is the end of follow-up, `start` its beginning where entry is delayed."""

    time: str
    status: str
    start: str | None = None

    @property
    def variables(self) -> tuple[str, ...]:
        return (self.start, self.time, self.status) if self.start else (self.time, self.status)


@dataclass(frozen=True)
class Term:
    """A main effect (one variable) or an interaction (several), in the order written; `site` may be among them."""

    variables: tuple[str, ...]

    def __str__(self) -> str:
        return ":".join(self.variables)


@dataclass(frozen=True)
class Formula:
    """What a model is made of. `terms` stand in ascending degree, each once; `strata` may hold `site`."""

    text: str
    response: str | Survival
    terms: tuple[Term, ...]
    strata: tuple[str, ...] = ()
    intercept: bool = True

    @property
    def covariates(self) -> tuple[str, ...]:
        """The variables of the terms, each once, in order; `site` may be among them."""
        return tuple(dict.fromkeys(v for t in self.terms for v in t.variables))

    @property
    def variables(self) -> tuple[str, ...]:
        """Every dictionary variable that the formula reads: response, covariates, strata; never `site`."""
        response = self.response.variables if isinstance(self.response, Survival) else (self.response,)
        return tuple(v for v in dict.fromkeys((*response, *self.covariates, *self.strata)) if v != SITE)

    @property
    def outcome(self) -> str:
        """The response, of a method that has refused survival times."""
        if isinstance(self.response, Survival):
            raise TypeError(f"`{self.text}` has a survival response")
        return self.response

    @property
    def by_site(self) -> bool:
        """True with fixed effects by site (strata by site need no totals of single sites)."""
        return SITE in self.covariates


def parse(text: str) -> Formula:
    """A formula from its text. Raises `FormulaInvalid`: what is wrong, at which position, and what to write instead."""
    if not isinstance(text, str) or not text.strip():
        raise FormulaInvalid("the formula is empty", help="Write a formula such as `outcome ~ age + sex`.")
    if len(text) > LONGEST:
        raise FormulaInvalid(f"the formula has more than {LONGEST} characters", help="Declare derived variables to shorten it.")
    reader = _Reader(text)
    response = reader.response()
    reader.expect("~", "Write the outcome, then ~, then the covariates.")
    parts = reader.sum()
    if reader.kind != "end":
        reader.fault(f"{reader.value!r} is not expected here", "Join covariates with +.")
    each: dict[frozenset[str], Term] = {}
    for variables in parts.terms:
        each.setdefault(frozenset(variables), Term(variables))  # a:b and b:a are one term, as first written
    terms = tuple(sorted(each.values(), key=lambda t: len(t.variables)))
    formula = Formula(text.strip(), response, terms, tuple(parts.strata), parts.intercept is not False)
    _consistent(formula, reader)
    return formula


def _consistent(formula: Formula, reader: _Reader) -> None:
    response = formula.response.variables if isinstance(formula.response, Survival) else (formula.response,)
    if len(set(response)) != len(response):
        reader.fault("the response names a variable twice", "Write Surv(time, status).", at=0)
    for name in response:
        if name in formula.covariates or name in formula.strata:
            at = text_after(reader.text, name)
            reader.fault(f"{name!r} stands on both sides of ~", f"Take {name!r} out of the covariates.", at=at)
    for name in formula.strata:
        if name in formula.covariates:
            at = text_after(reader.text, name)
            reader.fault(f"{name!r} is both a covariate and a stratum", f"Keep one of {name} and strata({name}).", at=at)


def text_after(text: str, name: str) -> int:
    """Where a name stands right of the ~, as a position from 0."""
    found = re.compile(rf"\b{re.escape(name)}\b").search(text, text.find("~") + 1)
    return found.start() if found else 0


@dataclass
class _Parts:
    """What one side of an operator contributes: terms in order (keys), strata, and whether 1 or 0 was written."""

    terms: dict[tuple[str, ...], None] = field(default_factory=dict)
    strata: dict[str, None] = field(default_factory=dict)
    intercept: bool | None = None


class _Reader:
    """A reader of one formula, one token ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = self.end = 0
        self.depth = 0
        self.kind, self.value = "", ""
        self.advance()

    def fault(self, what: str, instead: str, *, at: int | None = None) -> NoReturn:
        position = self.at if at is None else at
        raise FormulaInvalid(f"in the formula {self.text.strip()!r}, at position {position + 1}: {what}", help=instead)

    def advance(self) -> None:
        """Read the next token into `kind` (name, number, sign, end) and `value`."""
        rest = self.text[self.end :]
        self.at = self.end + len(rest) - len(rest.lstrip())
        if not rest.strip():
            self.kind, self.value = "end", ""
            return
        found = TOKEN.match(self.text, self.end)
        if found is None:
            self._stray(self.text[self.at])
        self.end = found.end()
        self.kind = str(found.lastgroup)
        self.value = found[self.kind]
        if self.value == "*" and self.text[self.end : self.end + 1] == "*":
            self._stray("^")

    def _stray(self, character: str) -> NoReturn:
        instead = {
            "^": "Write the interactions out, such as a * b; a square is a derived variable.",
            "|": "Random effects are not offered; write `site` or strata(site).",
            ".": "Name the covariates one by one, joined with +.",
            "/": "Write a + a:b for b within a.",
            "%": "Write a + a:b for b within a.",
            "=": "Write ~ between outcome and covariates.",
            "<": "Declare a derived variable with the comparison, and name it here.",
            ">": "Declare a derived variable with the comparison, and name it here.",
            '"': "Write variable names without quotes.",
            "'": "Write variable names without quotes.",
        }.get(character, "Use names, + * : ( ), 0, 1, strata(...) and Surv(...).")
        self.fault(f"{character!r} is not part of the formula language", instead)

    def expect(self, sign: str, instead: str) -> None:
        if self.kind != "sign" or self.value != sign:
            found = "it ends" if self.kind == "end" else f"{self.value!r} stands here"
            self.fault(f"{found}, {sign!r} is expected", instead)
        self.advance()

    def name(self, what: str) -> str:
        if self.kind != "name":
            found = "the formula ends" if self.kind == "end" else f"{self.value!r} stands"
            self.fault(f"{found} where {what} is expected", "Write the name of a variable of the dictionary.")
        value = self.value
        self.advance()
        return value

    def arguments(self, call: str) -> tuple[str, ...]:
        """The names between parentheses."""
        self.expect("(", f"Write {call}(...) with variable names inside.")
        found = [self.name(f"a variable of {call}(...)")]
        while self.kind == "sign" and self.value == ",":
            self.advance()
            found.append(self.name(f"a variable of {call}(...)"))
        self.expect(")", f"Separate the variables of {call}(...) with commas and close the parenthesis.")
        return tuple(found)

    def response(self) -> str | Survival:
        start = self.at
        if self.kind == "sign" and self.value == "~":
            self.fault("the outcome is missing", "Write the outcome before the ~.")
        word = self.name("the outcome")
        if self.kind == "sign" and self.value == "(":
            if word != "Surv":
                self.fault(f"{word}(...) cannot be an outcome", "Declare a derived variable and name it here.", at=start)
            given = self.arguments("Surv")
            if len(given) == 2:
                return Survival(given[0], given[1])
            if len(given) == 3:
                return Survival(given[1], given[2], given[0])
            self.fault(f"Surv has {len(given)} variables", "Write Surv(time, status) or Surv(start, stop, status).", at=start)
        if word == SITE:
            self.fault("`site` means the study's sites and is no outcome", "Name a variable of the dictionary.", at=start)
        return word

    def sum(self) -> _Parts:
        total = _Parts()
        sign = self._sign() or "+"
        while True:
            start = self.at
            part = self.product()
            if sign == "-":
                if part.terms or part.strata or part.intercept is not True:
                    instead = "Leave the covariate out; `- 1` is a model without intercept."
                    self.fault("only 1 can be taken away", instead, at=start)
                part = _Parts(intercept=False)
            total.terms |= part.terms
            total.strata |= part.strata
            if part.intercept is not None:
                total.intercept = part.intercept
            if len(total.terms) > WIDEST:
                self.fault(f"the formula has more than {WIDEST} terms", "Name fewer covariates or interactions.", at=start)
            next_sign = self._sign()
            if next_sign is None:
                return total
            sign = next_sign

    def _sign(self) -> str | None:
        if self.kind == "sign" and self.value in "+-":
            sign = self.value
            self.advance()
            return sign
        return None

    def product(self) -> _Parts:
        left = self.crossing()
        while self.kind == "sign" and self.value == "*":
            start = self.at
            self.advance()
            right = self.crossing()
            crossed = self._crossed(left, right, start, "*")
            left = _Parts(left.terms | right.terms | crossed.terms)
        return left

    def crossing(self) -> _Parts:
        left = self.atom()
        while self.kind == "sign" and self.value == ":":
            start = self.at
            self.advance()
            left = self._crossed(left, self.atom(), start, ":")
        return left

    def _crossed(self, left: _Parts, right: _Parts, at: int, sign: str) -> _Parts:
        if left.strata or right.strata:
            self.fault(f"strata(...) stands beside {sign!r}", "Add strata with +; strata(a, b) crosses two.", at=at)
        if left.intercept is not None or right.intercept is not None:
            self.fault(f"a number stands beside {sign!r}", "Name variables on both sides.", at=at)
        out: dict[tuple[str, ...], None] = {}
        known = {frozenset(t) for t in (*left.terms, *right.terms)} if sign == "*" else set()
        for a in left.terms:
            for b in right.terms:
                shared = [v for v in a if v in b]
                if shared:
                    name = shared[0]
                    self.fault(
                        f"{name!r} is crossed with itself", f"For a square, declare a derived variable: {name} * {name}.", at=at
                    )
                if frozenset((*a, *b)) not in known:
                    out[(*a, *b)] = None
        if len(out) > WIDEST:
            self.fault(f"the formula has more than {WIDEST} terms", "Name fewer covariates or interactions.", at=at)
        return _Parts(out)

    def atom(self) -> _Parts:
        start = self.at
        if self.kind == "number":
            if self.value not in ("0", "1"):
                self.fault(f"{self.value} is not a term", "Write 1 for an intercept, 0 for none, or a variable's name.")
            one = self.value == "1"
            self.advance()
            return _Parts(intercept=one)
        if self.kind == "sign" and self.value == "(":
            self.depth += 1
            if self.depth > DEEPEST:
                self.fault("too many parentheses", "Write the terms out.")
            self.advance()
            inside = self.sum()
            self.expect(")", "Close the parenthesis.")
            self.depth -= 1
            return inside
        word = self.name("a covariate")
        if self.kind == "sign" and self.value == "(":
            if word == "strata":
                return _Parts(strata=dict.fromkeys(self.arguments("strata")))
            self._computed(word, start)
        if word in ("strata", "Surv"):
            self.fault(f"{word} is a function", f"Write {word}(...).", at=start)
        return _Parts(terms={(word,): None})

    def _computed(self, word: str, start: int) -> NoReturn:
        if word == "Surv":
            self.fault("Surv(...) stands right of the ~", "Write Surv(time, status) before the ~.", at=start)
        if word in ("offset", "weights"):
            self.fault(f"{word} is an option of the analysis", f"Write `{word}: variable` under its options.", at=start)
        if word == "cluster":
            self.fault("cluster(...) is not needed", "Robust errors are an option of the analysis: `robust: true`.", at=start)
        if word in ("factor", "C"):
            self.fault(f"{word}(...) is not needed", "A variable of type category is a factor; name it alone.", at=start)
        example = FUNCTIONS.get(word) or "…"
        self.fault(
            f"{word}(...) is not computed in a formula",
            f"Declare a derived variable with the expression {example}, with a range, and name it here.", at=start,
        )  # fmt: skip
