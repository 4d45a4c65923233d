"""What the coordinator must not learn: pure functions over bytes and arrays."""
