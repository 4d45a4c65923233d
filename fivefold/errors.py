"""Every error that a user can meet, as one tree.

    FivefoldError
    ├── StudyError          the study file (exit 10-19)
    ├── DataError           a site's data and mapping (20-29)
    ├── Refused             a site, a rule or a policy said no (30-39, and 71-73)
    ├── ProtocolError       messages, secure sum (40-49)
    ├── RunError            a run and its folder (50-59)
    ├── MethodError         a method cannot answer (60-69)
    ├── EngineProblem       what carries the messages (80-89)
    └── PackageProblem      a research package and its repository (90-99)

Each class has an exit code of its own, a `code` that may leave a site, and a `help` line that says what to do next. What leaves
a site about an error is `public()`: the code, the rule's name and the study's variable; never the message.
"""

from __future__ import annotations

from typing import ClassVar


class FivefoldError(Exception):
    """One clear sentence, with a next step."""

    exit_code: ClassVar[int] = 1
    help: ClassVar[str] = ""

    def __init__(self, message: str, *, help: str | None = None, rule: str = "", variable: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = help if help is not None else type(self).help
        self.rule = rule
        self.variable = variable

    @property
    def code(self) -> str:
        return type(self).__name__

    def public(self) -> dict[str, str]:
        """What may leave a site about this error: never a value, a count, a path, SQL or a library's message."""
        return {"code": self.code, "rule": self.rule, "variable": self.variable}


# ---- the study file -------------------------------------------------------------------------------------------------
class StudyError(FivefoldError):
    exit_code = 10
    help = "Correct the study file; `fivefold study check STUDY` shows every fault with its line."


class StudyNotFound(StudyError):
    exit_code = 11
    help = "Give the path of a study file, or write one with `fivefold study new`."


class StudyInvalid(StudyError):
    exit_code = 12


class StudyAltered(StudyError):
    exit_code = 13
    help = "Freeze and sign the study again with `fivefold study sign STUDY`; every site then has to approve it anew."


class FormulaInvalid(StudyError):
    exit_code = 14


class KeyProblem(StudyError):
    exit_code = 15
    help = "Make a key with `fivefold keys new FILE`, or name the right one."


# ---- a site's data --------------------------------------------------------------------------------------------------
class DataError(FivefoldError):
    exit_code = 20
    help = "Look at the site's data and mapping; `fivefold site check` lists what was found."


class SourceNotFound(DataError):
    exit_code = 21


class ColumnMissing(DataError):
    exit_code = 22
    help = "Correct the column's name in mapping.yaml."
    column: str = ""
    """The source's own word; it stays at the site."""


class UnitUnknown(DataError):
    exit_code = 23
    help = "Write a unit that converts to the dictionary's, such as `cm` for a variable in `m`."


class ValueNotFinite(DataError):
    exit_code = 24


class SnapshotProblem(DataError):
    exit_code = 25


class MappingInvalid(DataError):
    exit_code = 26
    help = "Correct mapping.yaml."


class SourceMalformed(DataError):
    """A file or database that is there, but cannot be read as a table."""

    exit_code = 27
    help = "Export the data again: one header, as many cells in every row, UTF-8 (or say `encoding:` in mapping.yaml)."


class ValueInvalid(DataError):
    """A value outside its type, range or codes, where the mapping says `on_invalid: refuse`."""

    exit_code = 28
    help = "Correct the value or its mapping, or write `on_invalid: missing` to count it as missing."


# ---- a refusal ------------------------------------------------------------------------------------------------------
class Refused(FivefoldError):
    exit_code = 30
    help = "The site's own log says which rule refused and why."


class NotApproved(Refused):
    exit_code = 31
    help = "The site's custodian approves with `fivefold site approve STUDY`."


class PolicyRefuses(Refused):
    exit_code = 32
    help = "Ask the custodian; the rule stands in the site's own site.yaml."


class TooFewPersons(Refused):
    exit_code = 33
    help = "Widen the cohort or the categories, or take the variable out of the analysis."


class TooFewSites(Refused):
    exit_code = 34
    help = "Wait for more sites: with fewer, one could learn another's numbers by subtraction."


class QuestionNotApproved(Refused):
    exit_code = 35
    help = "The question does not follow from the approved study; do not trust this coordinator."


class DifferencingRefused(Refused):
    exit_code = 36


class SiteRefused(Refused):
    """A site answered with a refusal; seen at the coordinator, where only the public part is known."""

    exit_code = 37


class OutOfBounds(Refused):
    """A value at a site lies beyond the public bound that the study declares."""

    exit_code = 38
    help = "Correct the range in the dictionary or max_rows_per_site, and sign the study again."


class StatementInvalid(Refused):
    """A signed statement (policy, approval, key, notice) that was altered, or does not follow the one before it."""

    exit_code = 39
    help = (
        "Ask whoever signed it for the file as it was sent; one of a site's own state folder is restored from a back-up and "
        "compared with the site's audit log."
    )


class BudgetSpent(Refused):
    """The release would bring the data asset's privacy budget above its cap."""

    exit_code = 71
    help = "The custodian sees who spent it with `fivefold site budget`; a higher cap is a new signed version of site.yaml."


class CodeRefused(Refused):
    """A model's own code that this site may not or cannot confine."""

    exit_code = 72
    help = "The custodian's policy says `user_models`; docs/how-to/bring-your-own-model.md has what a site needs."


# ---- messages and the secure sum ------------------------------------------------------------------------------------
class ProtocolError(FivefoldError):
    exit_code = 40
    help = "Run again; if it happens twice, compare versions with `fivefold --version` at every site."


class MessageMalformed(ProtocolError):
    exit_code = 41


class SignatureWrong(ProtocolError):
    exit_code = 42
    help = "Compare the key fingerprints by telephone; the message was not made by the key in the study."


class ProtocolViolation(ProtocolError):
    exit_code = 43


class AggregateFalse(ProtocolError):
    exit_code = 44
    help = "The coordinator's total is not the sum of the sites' updates; do not trust this coordinator."


class TooManyDropouts(ProtocolError):
    exit_code = 45
    help = "Bring the missing sites back, then resume the run with --resume."


class SealBroken(ProtocolError):
    """A sealed message that was altered, or was not meant for this place, sender, receiver or round."""

    exit_code = 46
    help = "Run again; if it happens twice, do not trust the way between the sites: compare the key fingerprints by telephone."


class AnswerMalformed(ProtocolError):
    """A site step's answer that does not fit the fields that its question declares: a fault of the method, not of the data."""

    exit_code = 47
    help = "This is a fault in the method; report it to its author with the step's name and the field's."


# ---- a run ----------------------------------------------------------------------------------------------------------
class RunError(FivefoldError):
    exit_code = 50


class RunFolderTaken(RunError):
    exit_code = 51
    help = "Choose another folder with --out, or continue the run there with --resume."


class RunInterrupted(RunError):
    exit_code = 52


class JournalProblem(RunError):
    exit_code = 53


class StorageFull(RunError):
    exit_code = 54
    help = "Free space on the disk, then continue with --resume: nothing was lost."


class AuditBroken(RunError):
    exit_code = 55
    help = "Keep the file as it is and compare it with the copies that the other sites hold."


class CrateInvalid(RunError):
    exit_code = 56


class LedgerBroken(RunError):
    """The budget's ledger is damaged, was altered, or is older than the audit log says."""

    exit_code = 57
    help = "Bring back the newest copy of the ledger; where there is none, the asset's budget counts as spent."


class OutputRequestInvalid(RunError):
    """A request for a release, or a word on one, that does not fit."""

    exit_code = 58
    help = "`fivefold outputs list RUN` shows the requests."


class OutputHeld(RunError):
    """A result that was not released yet, or must not be."""

    exit_code = 59
    help = "`fivefold outputs list RUN` says what is missing."


# ---- what carries the messages ---------------------------------------------------------------------------------------
class EngineProblem(FivefoldError):
    """What carries the messages is not there, or does not let this party in."""

    exit_code = 80
    help = "Look at the coordinator's SuperLink: `fivefold coordinator start DIR` says where it listens."


class EngineMissing(EngineProblem):
    """What should carry the messages is not installed."""

    exit_code = 81
    help = "Install it as the sentence says, or take another engine with --engine."


class EngineFailed(EngineProblem):
    """What carries the messages stopped, or lost its connection."""

    exit_code = 82
    help = "Continue with `fivefold run STUDY --resume RUN`."


class EngineUnfit(EngineProblem):
    """What should carry the study cannot keep what the study or its method needs."""

    exit_code = 84
    help = "Take an engine with the secure sum: `fivefold run STUDY --engine flower`."


class SimulationInvalid(EngineProblem):
    """A simulation was asked for that cannot be: clients, roster or partition do not fit the study or its rows."""

    exit_code = 85
    help = "Correct the options; `fivefold simulate --help` explains each."


# ---- a research package ---------------------------------------------------------------------------------------------
class PackageProblem(FivefoldError):
    exit_code = 90
    help = "Look at the package with `fivefold crate validate CRATE`."


class NotReproduced(PackageProblem):
    exit_code = 91
    help = "Look at the versions and the CPU in the package, and at whether its files were changed: `fivefold crate validate`."


class DepositRefused(PackageProblem):
    """A repository said no: token, rights, metadata or state."""

    exit_code = 92
    help = "Look at the record on the repository's page."


class DepositInterrupted(PackageProblem):
    """The repository could not be reached, or the line was cut."""

    exit_code = 93
    help = "Nothing is lost: give the same command again, and it goes on where it stopped."


class ModelNotExported(PackageProblem):
    """There is no model in the run that could be written in this format."""

    exit_code = 94
    help = "Only the methods of federated training have a model; a fit of the method `glm` is its table of coefficients."


# ---- a method -------------------------------------------------------------------------------------------------------
class MethodError(FivefoldError):
    exit_code = 60


class CodeFailed(MethodError):
    """A model's own code that failed, was too slow, or used what it may not. What it said stays at the site."""

    exit_code = 65
    help = "Try the code alone on rows of your own; it may use no file, network, thread or process."


class NotConverged(MethodError):
    exit_code = 61
    help = "Allow more iterations in the study, or simplify the model."


class Separation(MethodError):
    exit_code = 62
    help = "Merge categories or take the variable out of the model."


class Collinear(MethodError):
    exit_code = 63
    help = "Take one of the variables out of the model."


class CategoryAbsent(MethodError):
    exit_code = 64
    help = "Merge the category with another in the dictionary, or restrict the analysis."
