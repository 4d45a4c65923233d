"""The study as a deterministic value that coordinator and every site run alike."""
