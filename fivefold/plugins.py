"""All extension points on one page; the built-in parts use the same doors.

A method lives in its own module, which is imported only when a study names it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from fivefold.errors import StudyInvalid

if TYPE_CHECKING:
    from fivefold.algorithms.method import Method

METHODS = {
    "statistics": "fivefold.algorithms.statistics",
    "glm": "fivefold.algorithms.glm",
    "cox": "fivefold.algorithms.cox",
    "kaplan_meier": "fivefold.algorithms.kaplan_meier",
    "fedavg": "fivefold.algorithms.fedavg",
    "fedprox": "fivefold.algorithms.fedprox",
    "fedopt": "fivefold.algorithms.fedopt",
    "fedbuff": "fivefold.algorithms.fedbuff",
    "scaffold": "fivefold.algorithms.scaffold",
    "personalised": "fivefold.algorithms.personalised",
    "cyclic": "fivefold.algorithms.cyclic",
    "robust": "fivefold.algorithms.robust_training",
}
"""Built-in methods: name in the study file → module with a `METHOD`. Others: entry points in the group `fivefold.methods`."""

FOREIGN = {"flower_app": "fivefold.engines.flower.governed"}
"""Methods in which sites run code that is somebody else's: approved by its digest, named by each site's policy."""


def method(name: str) -> Method:
    """The method that a study names. Raises `StudyInvalid` with the known names."""
    if name in METHODS or name in FOREIGN:
        built_in: Method = import_module(METHODS.get(name) or FOREIGN[name]).METHOD
        return built_in
    for point in entry_points(group="fivefold.methods"):
        if point.name == name:
            theirs: Method = point.load()
            return theirs
    raise StudyInvalid(f"there is no method called {name!r}", help=f"Write one of: {', '.join(METHODS)}.")
