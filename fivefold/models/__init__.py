"""What is trained: models as pure functions of named weights. They know rows as arrays, and no site, round or network."""
