"""Measure the speeds that the benchmark promises: evaluator, preparation, page."""
