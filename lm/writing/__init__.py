"""Generation: rollouts for many prompts at once, by transformers' models or by vLLM."""
