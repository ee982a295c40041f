"""Tests of the rehearsal: its data, its damage, its proof and its reports."""
