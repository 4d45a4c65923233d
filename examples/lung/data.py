"""NCCTG lung cancer (Loprinzi et al., J Clin Oncol 12:601, 1994), as five groups of its real institutions might hold it.

Nothing is invented: the values are those that lifelines ships. What differs between the sites is how they write them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

INSTITUTIONS = {
    "inst-01-02": range(1, 3),
    "inst-03-07": range(3, 8),
    "inst-10-12": range(10, 13),
    "inst-13-16": range(13, 17),
    "inst-21-33": range(21, 34),
}
POUND = 0.45359237


def pooled() -> tuple[pd.DataFrame, str]:
    """All 227 patients with an institution in the dictionary's own terms (and `site`), and what was left out."""
    from lifelines.datasets import load_lung

    raw = load_lung().rename(columns={"ph.ecog": "ecog", "wt.loss": "weight_loss", "status": "died"})
    raw["patient"] = [f"P{i:03d}" for i in range(1, len(raw) + 1)]
    site = raw.inst.map({i: name for name, numbers in INSTITUTIONS.items() for i in numbers})
    frame = raw.assign(site=site, weight_loss=raw.weight_loss * POUND, sex=raw.sex.map({1: "m", 2: "f"}))
    frame = frame[["site", "patient", "time", "died", "age", "sex", "ecog", "weight_loss"]]
    known = frame[site.notna()].reset_index(drop=True)
    without = len(raw) - len(known)
    return known, f"{without} of {len(raw)} patients has no institution and is left out; {len(known)} remain at five sites"


def as_held(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A site's rows under its own columns, units and codes: what its mapping.yaml undoes."""
    pounds = frame.weight_loss / POUND
    if name == "inst-01-02":  # as published
        return frame.assign(
            status=frame.died + 1, sex=frame.sex.map({"m": 1, "f": 2}), **{"ph.ecog": frame.ecog, "wt.loss": pounds.round(6)}
        )[["patient", "time", "status", "age", "sex", "ph.ecog", "wt.loss"]]
    if name == "inst-03-07":  # time in weeks, weight in kilograms
        return frame.assign(weeks=frame.time / 7, dead=frame.died.map({0: "no", 1: "yes"}))[
            ["patient", "weeks", "dead", "age", "sex", "ecog", "weight_loss"]
        ]
    if name == "inst-10-12":  # 9 where the performance status was not noted
        return frame.assign(ecog=frame.ecog.fillna(9).astype(int), lost_g=frame.weight_loss * 1000)[
            ["patient", "time", "died", "age", "sex", "ecog", "lost_g"]
        ]
    if name == "inst-13-16":  # another word for everything
        return frame.assign(
            fu_days=frame.time, exitus=frame.died, gender=frame.sex.map({"m": "male", "f": "female"}), ps=frame.ecog
        )[["patient", "fu_days", "exitus", "age", "gender", "ps", "weight_loss"]].rename(
            columns={"patient": "record", "age": "age_years", "weight_loss": "kg_lost"}
        )
    return frame.assign(age=frame.age * 12, weight_loss=pounds.round(6))[  # inst-21-33: ages in months
        ["patient", "time", "died", "age", "sex", "ecog", "weight_loss"]
    ].rename(columns={"age": "age_months"})
