"""The command line: a door that holds no rules."""
