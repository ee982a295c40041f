"""The Lambda bundle: one thin entry point a module, the pure core in :mod:`handlers.core`."""
