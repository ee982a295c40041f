"""Tests of the fault suite, and a short form of it."""
