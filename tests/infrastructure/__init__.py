"""Tests of what the program deploys."""
