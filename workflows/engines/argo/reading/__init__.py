"""From what Kubernetes has of a build to what the farm says of it: status, log, outputs."""
