"""Tests of the Lambda entry points, against an emulated AWS over its real wire format."""
