"""Tests of the pure core: no client, no emulator."""
