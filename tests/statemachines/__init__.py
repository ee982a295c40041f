"""Tests of the state machines: as definitions, and executed."""
