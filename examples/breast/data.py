"""Wisconsin diagnostic breast cancer (Street, Wolberg and Mangasarian, 1993), as five hospitals might hold it.

The records come from one clinic. They are dealt out to five invented hospitals, and a few cells are taken out and written as
each hospital's own code for "not known", so that there is something to harmonise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

SHARES = {"alder": 0.28, "birch": 0.23, "cedar": 0.20, "elm": 0.16, "fir": 0.13}
SEED = 1993


def pooled() -> tuple[pd.DataFrame, str]:
    """All 569 patients in the dictionary's own terms (and `site`), and what was taken out."""
    import numpy as np
    import pandas as pd
    from sklearn.datasets import load_breast_cancer

    raw = load_breast_cancer(as_frame=True).frame
    rng = np.random.default_rng(SEED)
    frame = pd.DataFrame(
        {
            "site": rng.choice(list(SHARES), len(raw), p=list(SHARES.values())),
            "patient": [f"W{i:04d}" for i in rng.permutation(len(raw)) + 1],
            "malignant": 1.0 - raw.target,
            "radius": raw["mean radius"],
            "texture": raw["mean texture"],
            "symmetry": raw["mean symmetry"] * 100,
            "area": raw["mean area"],
        }
    )
    frame["texture"] = frame.texture.mask(rng.random(len(raw)) < 0.04)
    frame["malignant"] = frame.malignant.mask(rng.random(len(raw)) < 0.01)
    without = int(frame.isna().any(axis=1).sum())
    return frame, f"{len(frame)} patients at five hospitals; in {without} the texture or the outcome was made unknown"


def as_held(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A hospital's rows under its own columns, units and codes: what its mapping.yaml undoes."""
    if name != "cedar":
        frame = frame.assign(symmetry=frame.symmetry / 100)
    if name == "alder":  # micrometres; letters; NA
        return frame.assign(diagnosis=_coded(frame, "B", "M", "NA"))[
            ["patient", "diagnosis", "radius", "texture", "symmetry", "area"]
        ].rename(columns=lambda c: f"mean {c}" if c in ("radius", "texture", "symmetry", "area") else c)
    if name == "birch":  # millimetres; 0 and 1; -9
        return frame.assign(
            outcome=_coded(frame, "0", "1", "-9"),
            radius_mm=frame.radius / 1e3,
            area_mm2=frame.area / 1e6,
            texture=frame.texture.fillna(-9),
        )[["patient", "outcome", "radius_mm", "area_mm2", "texture", "symmetry"]]
    if name == "cedar":  # nanometres, per cent; words; decimal commas
        return frame.assign(
            Befund=_coded(frame, "gutartig", "bösartig", "k.A."),
            Radius_nm=frame.radius * 1e3,
            Flaeche=frame.area,
            Asymmetrie=frame.symmetry,
        )[["patient", "Befund", "Radius_nm", "Flaeche", "texture", "Asymmetrie"]].rename(
            columns={"patient": "Fall", "texture": "Textur"}
        )
    if name == "elm":  # centimetres; 1, 2 and 9; 999
        return frame.assign(
            dx=_coded(frame, "1", "2", "9"), r_cm=frame.radius / 1e4, a_cm2=frame.area / 1e8, txt=frame.texture.fillna(999)
        )[["patient", "dx", "r_cm", "a_cm2", "txt", "symmetry"]]
    return frame.assign(malign=_coded(frame, "false", "true", "unknown"), diameter=frame.radius * 2)[  # fir: diameters
        ["patient", "malign", "diameter", "area", "texture", "symmetry"]
    ]


def _coded(frame: pd.DataFrame, benign: str, malignant: str, unknown: str) -> pd.Series:
    return frame.malignant.map({0.0: benign, 1.0: malignant}).fillna(unknown)
