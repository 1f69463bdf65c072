"""One attempt of the local engine: its folder, what is executed, the process that executes it, its log."""
