"""What a user may set: the config's schema, its checks, ablations' factors, and the method files that it names."""
