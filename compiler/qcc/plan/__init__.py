"""Memory: where every activation lies, and for how long."""
