"""From finished runs to statistics: reading runs back, comparisons, tests, costs and what rows learned from."""
