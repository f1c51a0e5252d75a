"""Texts of an LLM about users, shared by the baselines that feed them to a sequential network."""
