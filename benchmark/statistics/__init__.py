"""Statistics of finished runs, computed once and written to csv, which tables, plots, claims and page read."""
