"""The life of a click, from a spec to a server, as encoded events."""
