"""What keeps the farm under its limits, and what cleaning must leave alone."""
