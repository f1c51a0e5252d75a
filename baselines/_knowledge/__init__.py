"""What an LLM writes about users, shared by the baselines that give it to a sequential network."""
