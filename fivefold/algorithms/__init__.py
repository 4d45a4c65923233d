"""HOW it is learned: one file per method, both halves side by side."""
