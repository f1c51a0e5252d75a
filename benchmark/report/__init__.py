"""One self-contained page of a finished benchmark: tables, tests, plots, data, provenance and written reasonings."""
