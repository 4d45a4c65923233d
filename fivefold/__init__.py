"""Fivefold: governed federated studies. Sites keep their records; a coordinator receives only sums."""

__version__ = "0.1.0"
