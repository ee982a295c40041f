"""The embedded AWS: an emulator of the services the product uses, and a way to deploy a Pulumi program into it.

Nothing here talks to a real account. `localaws.server` starts the emulator, `localaws.deployment` runs a Pulumi program
against it, `python -m localaws up` does both and leaves it running.
"""
