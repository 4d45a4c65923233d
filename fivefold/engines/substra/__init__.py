"""Substra carries a study as a compute plan: a task for each site and round, and one that adds up."""
