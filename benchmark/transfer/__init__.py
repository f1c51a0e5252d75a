"""Runs that go from one machine to another: export on the one, import on the other."""
