"""The steps of a build, each a command of the step runner."""
