"""A language model that writes and reads; no recommender in it."""
