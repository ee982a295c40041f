"""ministack, mended where it differs from AWS in ways that would make a rehearsal prove nothing.

One module a service. Each asserts that what it replaces still exists with the signature it was written for, so that an
upgrade of ministack fails at start instead of silently running without the mend.
"""
