"""How a result came to be: audit log, provenance, crate."""
