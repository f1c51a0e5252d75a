"""The fault campaign, `python -m tests.faults`.

Files are damaged, inputs made hostile, jobs killed, and methods misbehave.
"""
