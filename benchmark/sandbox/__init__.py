"""The sandbox of a run: a method can't read test targets, nor write to files that aren't its own."""
