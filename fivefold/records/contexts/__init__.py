"""The JSON-LD terms that a crate of Fivefold uses, so that it is validated without a network."""
