"""Tests of the test bench: that it limits, counts and answers as AWS documents."""
