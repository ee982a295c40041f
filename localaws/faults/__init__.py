"""Faults on purpose: a recovery, struck at every call and every state, and started once more if it fell."""
