"""What a reader sees: tables, plots, claims and the page."""
