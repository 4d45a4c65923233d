"""Released values made visible: JSON, CSV, plots."""
