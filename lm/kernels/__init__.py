"""The parts of a forward pass that are written anew here: attention, LoRA and log-probabilities of tokens."""
