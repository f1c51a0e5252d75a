"""What tests share: planted data, tiny models, stubs and helpers that kill and listen."""
