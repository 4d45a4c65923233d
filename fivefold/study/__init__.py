"""WHAT is to be done: the signed study, its dictionary, its digest."""
