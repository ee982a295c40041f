"""Properties that hold for every table, every interruption and every input, searched by Hypothesis."""
