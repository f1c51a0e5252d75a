"""Files on disk: written whole or not at all, checked by checksum, and found again by all that they depend on."""
