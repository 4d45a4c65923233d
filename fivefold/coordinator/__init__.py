"""The side WITHOUT rows."""
