"""The side WITH the rows."""
