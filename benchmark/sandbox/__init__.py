"""Test targets out of a method's reach, and its hands off what isn't its own, while it fits and scores."""
