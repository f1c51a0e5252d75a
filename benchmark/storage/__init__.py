"""Files on disk: written whole or not at all, downloaded by checksum, found again by what they were made of."""
