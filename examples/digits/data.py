"""Handwritten digits (Alpaydin and Kaynak, 1998; UCI), as ten post offices might hold them: each with a mixture of its own.

The images come with scikit-learn, 1,797 of 8 by 8 pixels. Who wrote which is not told: here every image has its own writer.
The mixtures are drawn from a Dirichlet distribution (0.5), as in Hsu, Qi and Brown (arXiv 1909.06335).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

SITES = ("alder", "birch", "cedar", "elm", "fir", "hazel", "juniper", "larch", "maple", "oak")
SEED = 1998


def pooled() -> tuple[pd.DataFrame, str]:
    """All images in the dictionary's own terms, with `site` and `writer`, and how they were dealt out."""
    import numpy as np
    import pandas as pd
    from sklearn.datasets import load_digits

    raw = load_digits()
    rng = np.random.default_rng(SEED)
    shares = rng.dirichlet([0.5] * len(SITES), 10)
    frame = pd.DataFrame(raw.data, columns=[f"p{i}" for i in range(64)])
    frame = frame.assign(
        digit=raw.target.astype(str),
        site=[SITES[int(rng.choice(len(SITES), p=shares[int(d)]))] for d in raw.target],
        writer=[f"W{i:04d}" for i in rng.permutation(len(raw.target)) + 1],
    )
    held = frame.site.value_counts()
    return frame, f"{len(frame)} images at ten sites of {held.min()} to {held.max()}, each with its own mixture of digits"


def as_held(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A site's images as its scanner wrote them."""
    del name
    columns = ["writer", "digit", *(f"p{i}" for i in range(64))]
    return frame[columns].rename(columns={"digit": "label", **{f"p{i}": f"pixel{i}" for i in range(64)}})
