"""Builds as Argo Workflows on Kubernetes."""
