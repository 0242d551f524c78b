"""What a compiled model consists of on disk."""
