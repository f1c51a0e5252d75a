"""R2ec and its training by RecPO: a language model that reasons, recommends, and learns both."""
