"""What must not leave: rules over counts and tables."""
