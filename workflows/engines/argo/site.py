"""What a site sets, and what everything is called: shared by the rendered templates, the chart and the engine.

A site's values reach the templates as inputs that are read from one ConfigMap, and never as arguments of a Workflow:
whoever may only submit Workflows cannot say which image runs or what a pod may do.
"""

from __future__ import annotations

from collections.abc import Mapping

from workflows.pipeline import SECRET_FILES

TEMPLATE = "argosy-build"
"""The WorkflowTemplate, and the ConfigMap of the site's parameters. The chart adds their content's digest."""

SETTINGS_MAP = f"{TEMPLATE}-settings"
"""The ConfigMap of the settings (``ARGOSY_…``) that every step sees. None of `workflows.pipeline.SECRET_SETTINGS`."""

LABEL = "argosy/pipeline"
"""On every Workflow of ours, with the value ``true``: the watch selects by it."""

RECORDED = "argosy/recorded"
"""On every Workflow of ours: ``true`` once it is filed, and nobody needs to look at it again. The template says
``false``, because `argo resubmit` copies the labels of a Workflow that is filed."""

POLICY_LABEL = "argosy/policy"
HALF_LABEL = "argosy/half"
"""On the WorkflowTemplates; on the pods: network policies select by it."""

SITE_PREFIX = "site-"
"""Begins the names of inputs that are the site's. The admission policy refuses arguments of such a name."""

EXECUTOR_ACCOUNT = "argosy-executor"

IMAGE = "image"
BUILDER_IMAGE = "builder-image"
"""The steps' image, and the one with the base images in it, in which the strangers' half runs."""

PUBLIC_URL = "public-url"
DEADLINE = "deadline-seconds"
REQUIRED = (IMAGE, BUILDER_IMAGE)
"""Keys of the ConfigMap that have no default."""

DEFAULTS: Mapping[str, str] = {
    PUBLIC_URL: "",  # of web, for the links in Argo's UI
    DEADLINE: "7200",  # of one pod; a step's own clocks end it, and say so, long before
    "strangers-patch": "{}",  # podSpecPatch of each pod, as JSON
    "ours-patch": "{}",
    "resolve-patch": "{}",
    **{f"secret-{name}": f"argosy-{name}" for name in SECRET_FILES},  # names of Secrets, which may be missing
}
"""Keys of the ConfigMap that may be left out."""
