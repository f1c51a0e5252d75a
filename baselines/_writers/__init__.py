"""LLMs that write or read text, shared by the baselines that use one."""
