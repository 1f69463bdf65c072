"""Keeps what lies on this machine's disk under its limits: what leaves is decided by one pure function."""
