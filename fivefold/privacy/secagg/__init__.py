"""SecAgg and SecAgg+ as pure functions."""
