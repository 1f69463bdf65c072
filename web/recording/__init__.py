"""What is remembered of builds: the one watch of the engine, filing, files and logs of what has ended."""
