"""Discrete Gaussian noise: samples a second against NumPy's normal generator and against OpenDP's sampler.

python -m benchmarks.noise
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np

from benchmarks.measure import Figures, in_turns, report
from fivefold.privacy.dp.discrete_gaussian import sample

DRAWS = 1_000_000
FEW = 10_000
"""Draws of the reference sampler, which takes microseconds for each."""
SCALES = (0.5, 4.0, 1e3, 1e6, 2.0**32, 2.0**50)
TURNS = 7
KEY = bytes(range(32))
TARGETS = {"ratio_to_numpy_normal": ">= 0.1"}


def main() -> None:
    opendp, figures, ratios, references = _opendp(), Figures(), [], []
    print(
        f"{DRAWS:,} exact draws from the discrete Gaussian, one thread; NumPy's standard_normal of as many in the same turns.\n"
    )
    print("deviation    this, M/s   NumPy, M/s   ratio" + ("   OpenDP, M/s   ratio" if opendp else ""))
    generator = np.random.default_rng(1)
    for scale in SCALES:
        variance = Fraction(scale) ** 2
        contestants: dict[str, Callable[[], object]] = {
            "this": partial(sample, variance, DRAWS, KEY),
            "numpy": partial(generator.standard_normal, DRAWS),
        }
        if opendp:
            contestants["opendp"] = partial(opendp, scale, FEW)
        best = in_turns(contestants, TURNS)
        ratios.append(best["numpy"] / best["this"])
        figures[f"sigma_{scale:.3g}_millions_per_s"] = DRAWS / best["this"] / 1e6
        row = f"{scale:9.3g} {DRAWS / best['this'] / 1e6:12.1f} {DRAWS / best['numpy'] / 1e6:12.1f} {ratios[-1]:7.2f}"
        if opendp:
            rate = FEW / best["opendp"]
            references.append(DRAWS / best["this"] / rate)
            row += f" {rate / 1e6:13.2f} {references[-1]:7.0f}"
        print(row)
    figures["ratio_to_numpy_normal"] = min(ratios)
    figures["ratio_to_opendp"] = min(references) if references else None
    print("\nThe ratios are NumPy's (OpenDP's) time for as many numbers over ours; the worst of the rows counts.")
    report("noise", figures, TARGETS)


def _opendp() -> Callable[[float, int], object] | None:
    """OpenDP's discrete Gaussian (Canonne, Kamath & Steinke's sampler, in Rust) as `draw(scale, n)`, or None."""
    try:
        import opendp.prelude as dp
    except ImportError:
        print("OpenDP is not installed, so nothing is compared with it: pip install opendp.\n")
        return None
    dp.enable_features("contrib")

    def draw(scale: float, n: int) -> object:
        space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
        return dp.m.make_gaussian(*space, scale=scale)([0] * n)

    return draw


if __name__ == "__main__":
    main()
