"""What is in an image and what is known against it: scanners, findings, the rules that decide, the database."""
