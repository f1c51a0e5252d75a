"""A trained R2ec that ranks, and the controls that read something else in the place of its reasoning."""
