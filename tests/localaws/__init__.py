"""Tests of the embedded AWS: each of its differences from ministack, and the in-process deployment."""
