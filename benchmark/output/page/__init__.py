"""The page of a run: one HTML file with its findings, leaderboard, comparisons, ablations and reasonings."""
