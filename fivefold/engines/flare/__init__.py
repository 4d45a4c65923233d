"""NVIDIA FLARE carries the messages: its job holds names of classes that every site installed itself, and no code."""
