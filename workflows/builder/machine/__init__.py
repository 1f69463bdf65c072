"""What the kernel offers to wall off a build: namespaces, control groups, a network of its own."""
