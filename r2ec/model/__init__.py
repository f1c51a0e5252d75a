"""The network of R2ec: the LM, its recommendation head, prompts and the table of items."""
