"""Kubernetes' API: how to be let in, one request, a watch, a lease. Knows nothing of builds."""
