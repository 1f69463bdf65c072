"""The step runner, ``python -I -m workflows.run STEP --name=value …``: the same on this machine and in a pod.

It owns what Argo's containerSet cannot do: retries of transient ends, limits of time and of silence, a cap on output,
and the end of every process that a step left behind. What it prints on stdout is the step's log, which visitors read;
what it prints on stderr, each line marked `OPERATOR_MARK`, is for the operator.
"""

OPERATOR_MARK = "[operator] "
"""Begins every line that a visitor must not read; where one stream carries both, whoever shows it leaves these out."""
