"""JupyterHub: its REST API, launches, the gate before it, who left, names and tokens."""
