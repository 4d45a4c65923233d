"""The only package that touches rows: connectors and harmonisation."""
