"""The bench: how fast, how cheap, and how far it scales."""
