"""R2ec's writing held to other engines, each in an environment of its own, on the same prompts."""
