"""A site's own noise: clipped, rounded and noised answers from the site's secret.

The noise is a pseudo-random function of the secret and of all that makes the answer what it is: a retry gets the same noise, so
that asking twice cannot average it away, and any change gets fresh noise. Keys, self-masks and shares never come from here.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from fivefold.errors import PolicyRefuses, RunError, ValueNotFinite
from fivefold.privacy.dp import rounding
from fivefold.privacy.dp.discrete_gaussian import KEY, Stream
from fivefold.privacy.dp.noisy_steps import NoisySteps
from fivefold.privacy.dp.shares import add_share, share_of
from fivefold.privacy.fixed_point import ring_for
from fivefold.protocol.encoding import encode
from fivefold.protocol.questions import Array, Field, Noise
from fivefold.site.snapshot import derived_key

MECHANISM = "discrete_gaussian/1"


def key_of(secret: bytes, identity: Mapping[str, Any]) -> bytes:
    """The key (32 bytes) from which all noise of one answer is drawn: HMAC-SHA256 over its whole identity. Raises `RunError`
    where the site has no secret: noise that anybody can draw again protects nobody."""
    if len(secret) != KEY:
        raise RunError("the site has no secret to draw noise from", rule="noise_secret")
    return hmac.digest(derived_key(secret, "noise"), encode({"mechanism": MECHANISM, **identity}), "sha256")


def own_steps(fields: Sequence[Field], multiplier: float, key: bytes) -> NoisySteps | None:
    """What a step that takes noisy steps draws persons and noise from; None where the question asks for none. Raises
    `PolicyRefuses` for such a field beside others."""
    if all(f.own is None for f in fields):
        return None
    if len(fields) > 1 or fields[0].own is None:
        raise PolicyRefuses("noisy steps are asked together with another sum", rule="noisy_steps")
    own = {
        "purpose": "own",
        "field": fields[0].name,
        "shape": fields[0].shape,
        "multiplier": multiplier,
        **asdict(fields[0].own),
    }
    return NoisySteps(fields[0].own, multiplier, hmac.digest(key, encode(own), hashlib.sha256))


def _whole(answer: Mapping[str, Array], f: Field, finished: bool) -> None:
    if not finished:
        raise PolicyRefuses(
            f"{f.name!r} did not take its noise from the gate, so nothing protects it", rule="noisy_steps", variable=f.name
        )
    if not np.all(np.isfinite(np.asarray(answer.get(f.name, np.zeros(0))))):
        raise ValueNotFinite(f"a value of {f.name!r} is not a finite number", rule="finite", variable=f.name)


def clipped(
    answer: Mapping[str, Array], fields: Sequence[Field], unit: Literal["person", "site"], finished: bool = False
) -> dict[str, Array]:
    """Each field within its sensitivity; one of noisy steps only where they are `finished`.

    Raises `PolicyRefuses` for a field that declares none, `ValueNotFinite`."""
    out = dict(answer)
    for f in fields:
        if f.own is not None:
            _whole(out, f, finished)
            continue
        if f.noise is None or f.sensitivity is None:
            raise PolicyRefuses(
                f"nobody knows by how much one {unit} changes {f.name!r}, so no noise protects it",
                rule="sensitivity",
                variable=f.name,
            )
        values = np.asarray(out.get(f.name, np.zeros(0)))
        if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
            raise ValueNotFinite(f"a value of {f.name!r} is not a finite number", rule="finite", variable=f.name)
        if unit == "site" and values.dtype.kind in "buif" and f.name in out:
            out[f.name] = rounding.clipped(values.astype(np.float64), f.sensitivity)
    return out


def rounded(answer: Mapping[str, Array], fields: Sequence[Field], key: bytes) -> dict[str, Array]:
    """Each clipped field on its noise's grid, by conditional rounding: its L2 norm stays within the rounded sensitivity."""
    out = dict(answer)
    for f in fields:
        assert f.noise is not None
        assert f.sensitivity is not None
        stream = Stream(_field_key(key, f, f.noise, "rounding"))

        def uniform(n: int, stream: Stream = stream) -> Array:
            return (stream.words(n) >> np.uint64(11)).astype(np.float64) * 2.0**-53

        steps = np.ldexp(np.asarray(out[f.name], dtype=np.float64), f.noise.exponent)
        norm = float(np.ldexp(f.sensitivity, f.noise.exponent))
        out[f.name] = np.ldexp(rounding.conditional(steps, norm, uniform), -f.noise.exponent)
    return out


def noised(vector: Array, fields: Sequence[Field], key: bytes) -> Array:
    """A copy of the ring vector with this site's share of the noise on every field, each from a key of its own."""
    out, ring, start = vector.copy(), ring_for(fields), 0
    for f in fields:
        if f.own is not None:  # its noise is in it
            start += f.size
            continue
        assert f.noise is not None
        drawn = share_of(f.noise, f.size, _field_key(key, f, f.noise, "noise"))
        add_share(out[start : start + f.size], drawn, ring)
        start += f.size
    return out


def _field_key(key: bytes, f: Field, noise: Noise, purpose: str) -> bytes:
    identity = {"purpose": purpose, "field": f.name, "shape": f.shape, "sensitivity": f.sensitivity, **asdict(noise)}
    return hmac.digest(key, encode(identity | {"limit": str(noise.limit), "allowance": str(noise.allowance)}), hashlib.sha256)
