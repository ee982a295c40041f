"""A stand-in for the Pulumi engine: runs the real program, checks what engine and provider would, creates by boto3.

It creates only. There is no state, no update and no destroy: the embedded AWS starts empty every time.
"""
