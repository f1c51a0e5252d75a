"""The speeds that the benchmark promises, measured: evaluator, preparation, tables."""
