"""The fault campaign, `python -m tests.faults`: files damaged, inputs made hostile, jobs killed, methods that
misbehave."""
