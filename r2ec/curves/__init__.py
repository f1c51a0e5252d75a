"""What long trainings of RecPO gain on their way: the runs of config/curves.yaml as csv, plots and tables."""
