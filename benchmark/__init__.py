"""The measuring instrument: datasets, protocol, evaluator, statistics, tables. It imports no method."""
