"""The page of a run: one HTML file that says what the run shows, with its leaderboard, comparisons, ablations and
reasonings."""
