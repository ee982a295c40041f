"""`python -m localaws up | down | drill | faults`: what `make local-up`, `local-down`, `demo` and `faults` run."""

import sys

USAGE = """usage: python -m localaws up | down | drill | faults

up     start the embedded AWS with the sample application and the stack `local`, and leave it running
down   stop it
drill  rehearse a recovery on an embedded AWS of its own
faults strike recoveries with faults, at every call and every state; [--cases N] a spread, [--only TEXT] some
"""


def main() -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:]
    command = arguments[0] if arguments else ""
    if command == "drill":
        from localaws import drill

        return int(drill.main() or 0)
    if command == "faults":
        from localaws.faults import suite

        return suite.main(arguments[1:])
    if command in ("up", "down") and len(arguments) == 1:
        from localaws import practice

        return practice.up() if command == "up" else practice.down()
    sys.stderr.write(USAGE)
    return 2


if __name__ == "__main__":
    sys.exit(main())
