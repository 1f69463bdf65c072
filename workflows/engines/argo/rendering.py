"""Renders the pipeline into Argo's WorkflowTemplates, one for each scan policy. The one module that imports hera.

hera is used when a release is made (``make render``), never at run time.

Source: https://argo-workflows.readthedocs.io/en/latest/fields/ and ../../../shared/reference/hera.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import hera.shared._pydantic as _strictness

# Before hera's models are made of it: as it comes, a misspelt field vanishes without a word.
_strictness.APIBaseModel.model_config["extra"] = "forbid"

from hera.workflows import DAG, Container, ContainerNode, ContainerSet, Parameter, Task, WorkflowTemplate  # noqa: E402
from hera.workflows import models as m  # noqa: E402

from workflows.engines.argo import pod, site  # noqa: E402
from workflows.pipeline import BUILD, RESOLVE, RUNNER, SECRETS_FOLDER, Entry, Half, Standing, Step, plan  # noqa: E402

if m.TTLStrategy.model_config.get("extra") != "forbid":
    raise ImportError("hera was imported before this module, so its models take every misspelling")

POLICIES = ("report", "enforce", "off")

_DAY_SECONDS = 86400
_KEEP_DAYS = 7
"""A finished Workflow stays for so long: web has more than time enough to record it."""

_LOGS_STAY = "600s"
"""Pods of a finished Workflow stay for so long: whoever reads their logs comes to the end."""

_TITLE = (
    "{{=workflow.parameters.title != '' ? workflow.parameters.title"
    " : workflow.parameters.provider + '/' + workflow.parameters.spec}}"
)
_DESCRIPTION = (
    f"{{{{=(workflow.parameters['{site.SITE_PREFIX}{site.PUBLIC_URL}'] == '' ? '' : '[Build](' +"
    f" workflow.parameters['{site.SITE_PREFIX}{site.PUBLIC_URL}'] + '/builds/' + workflow.name + ') ') +"
    " (workflow.parameters['repo-url'] == '' ? '' : '[Repository](' + workflow.parameters['repo-url'] + ')')}}"
)


def render(policy: str) -> str:
    """The WorkflowTemplate of one policy, as YAML."""
    return str(template(policy).to_yaml())


def template(policy: str) -> WorkflowTemplate:
    """The WorkflowTemplate of one policy, as hera's object."""
    pods = pod.halves(plan(policy=policy, attach=True, resolve=True))
    with WorkflowTemplate(
        name=site.TEMPLATE,
        labels={site.POLICY_LABEL: policy},
        entrypoint=Entry.FROM_SPEC.value,
        arguments=_workflow_parameters(pods),
        workflow_metadata=m.WorkflowMetadata(
            labels={site.LABEL: "true", site.RECORDED: "false"},
            annotations={"workflows.argoproj.io/title": _TITLE, "workflows.argoproj.io/description": _DESCRIPTION},
        ),
        pod_metadata=m.Metadata(labels={site.LABEL: "true"}),
        automount_service_account_token=False,
        executor=m.ExecutorConfig(service_account_name=site.EXECUTOR_ACCOUNT),
        pod_spec_patch=json.dumps(pod.ALL_PODS),
        pod_gc=m.PodGC(strategy="OnWorkflowCompletion", delete_delay_duration=_LOGS_STAY),
        ttl_strategy=m.TTLStrategy(seconds_after_completion=_KEEP_DAYS * _DAY_SECONDS),
        security_context=m.PodSecurityContext(seccomp_profile=m.SeccompProfile(type="RuntimeDefault")),
    ) as made:
        for name, steps in pods.items():
            _pod(name, steps, policy)
        _build(pods)
        _from_spec(pods)
        _ours(pods)
    return made


# --- entry points: arrows between pods ---


def _build(pods: Mapping[str, tuple[Step, ...]]) -> None:
    with DAG(name=Entry.BUILD.value):
        _task("strangers", pods)
        _task("ours", pods, depends="strangers")


def _ours(pods: Mapping[str, tuple[Step, ...]]) -> None:
    with DAG(name=Entry.OURS.value):
        _task("ours", pods)


def _from_spec(pods: Mapping[str, tuple[Step, ...]]) -> None:
    """Ends early where the image is known, and builds nothing where the registry has it."""
    standing = "'{{tasks.resolve.outputs.parameters.standing}}'"
    with DAG(name=Entry.FROM_SPEC.value):
        _task("resolve", pods)
        _task("strangers", pods, is_resolved=True, depends="resolve", when=f"{standing} == '{Standing.ABSENT}'")
        _task(
            "ours",
            pods,
            is_resolved=True,
            depends="resolve && (strangers.Succeeded || strangers.Skipped)",
            when=f"{standing} != '{Standing.KNOWN}'",
        )


def _task(name: str, pods: Mapping[str, tuple[Step, ...]], *, is_resolved: bool = False, **more: Any) -> None:
    arguments = {each: _value(each, is_resolved=is_resolved) for each in pod.inputs(pods[name])}
    Task(name=name, template=pod.template_of(name), arguments=arguments, **more)


def _value(name: str, *, is_resolved: bool) -> str:
    if not is_resolved or name == "provider":
        return f"{{{{workflow.parameters.{name}}}}}"
    # What was not asked for by web is built as the farm builds: the image's name says nothing of options.
    return f"{{{{tasks.resolve.outputs.parameters.{name}}}}}" if name in RESOLVE.outputs else ""


# --- pods ---


def _pod(name: str, steps: tuple[Step, ...], policy: str) -> None:
    keys = [_image(steps[0]), site.DEADLINE, f"{name}-patch", *(f"secret-{each}" for each in _secrets(steps))]
    common: dict[str, Any] = {
        "name": pod.template_of(name),
        "inputs": [*(Parameter(name=each) for each in pod.inputs(steps)), *map(_input, keys)],
        "labels": {site.HALF_LABEL: name},
        "service_account_name": f"argosy-{name}",
        "automount_service_account_token": False,
        "active_deadline_seconds": _site(site.DEADLINE),
        "pod_spec_patch": _site(f"{name}-patch"),
        "volumes": _volumes(steps),
    }
    if name == RESOLVE.name:
        outputs = [_output(each) for each in RESOLVE.outputs]
        Container(**common, **_container(RESOLVE, steps, policy), outputs=outputs)
        return
    with ContainerSet(**common):
        for step in steps:
            # No dependencies: Argo looks every second whether they have ended, and the step runner all the time.
            ContainerNode(name=pod.container_of(step), **_container(step, steps, policy))


def _image(step: Step) -> str:
    """One image a pod, so that a node pulls one."""
    is_strangers = step.half is Half.STRANGERS and step.name != RESOLVE.name
    return site.BUILDER_IMAGE if is_strangers else site.IMAGE


def _container(step: Step, beside: tuple[Step, ...], policy: str) -> dict[str, Any]:
    return {
        "image": _site(_image(step)),
        # Said, because Argo would ask the registry for it otherwise, with credentials of its own.
        "command": [RUNNER[0]],
        "args": pod.arguments(step, beside),
        "working_dir": pod.WORKSPACE,
        "env": [m.EnvVar(name=name, value=value) for name, value in pod.environment(step, policy).items()],
        "env_from": [m.EnvFromSource(config_map_ref=m.ConfigMapEnvSource(name=site.SETTINGS_MAP))],
        # As what `build` runs, the site's patch says: it is root in a user namespace of its pod's own.
        "security_context": None if step.name == BUILD.name else m.SecurityContext.model_validate(pod.RESTRICTED),
        "volume_mounts": _mounts(step),
    }


def _mounts(step: Step) -> list[m.VolumeMount]:
    mounts = [
        m.VolumeMount(name="workspace", mount_path=pod.WORKSPACE),
        m.VolumeMount(name=f"tmp-{step.name}", mount_path=pod.TMP),
    ]
    mounts += [
        m.VolumeMount(name=f"secret-{name}", mount_path=f"{SECRETS_FOLDER}/{name}", read_only=True)
        for name in pod.files(step)
    ]
    if pod.has_account(step):
        mounts.append(m.VolumeMount(name="account", mount_path=pod.ACCOUNT, read_only=True))
    return mounts


def _volumes(steps: tuple[Step, ...]) -> list[m.Volume]:
    empty = m.EmptyDirVolumeSource()
    volumes = [m.Volume(name=name, empty_dir=empty) for name in ("workspace", *(f"tmp-{step.name}" for step in steps))]
    for name in _secrets(steps):
        # Optional: without it the step goes on as nobody in particular.
        secret = m.SecretVolumeSource(secret_name=_site(f"secret-{name}"), optional=True)
        volumes.append(m.Volume(name=f"secret-{name}", secret=secret))
    if any(map(pod.has_account, steps)):
        volumes.append(m.Volume(name="account", projected=m.ProjectedVolumeSource(sources=_ACCOUNT)))
    return volumes


def _secrets(steps: tuple[Step, ...]) -> list[str]:
    return list(dict.fromkeys(name for step in steps for name in pod.files(step)))


_ACCOUNT = [
    m.VolumeProjection(service_account_token=m.ServiceAccountTokenProjection(path="token", expiration_seconds=3600)),
    m.VolumeProjection(
        config_map=m.ConfigMapProjection(name="kube-root-ca.crt", items=[m.KeyToPath(key="ca.crt", path="ca.crt")])
    ),
    m.VolumeProjection(
        downward_api=m.DownwardAPIProjection(
            items=[
                m.DownwardAPIVolumeFile(
                    path="namespace", field_ref=m.ObjectFieldSelector(field_path="metadata.namespace")
                )
            ]
        )
    ),
]
"""What Kubernetes mounts by itself, where it is not told to leave it."""


# --- parameters ---


def _workflow_parameters(pods: Mapping[str, tuple[Step, ...]]) -> list[Parameter]:
    names = dict.fromkeys(name for steps in pods.values() for name in pod.inputs(steps))
    given = [Parameter(name=name, value="") for name in ("title", *names)]
    return [*given, _input(site.PUBLIC_URL)]


def _input(key: str) -> Parameter:
    reference = m.ConfigMapKeySelector(name=site.TEMPLATE, key=key)
    source = m.ValueFrom(config_map_key_ref=reference, default=site.DEFAULTS.get(key))
    return Parameter(name=f"{site.SITE_PREFIX}{key}", value_from=source)


def _output(name: str) -> Parameter:
    return Parameter(name=name, value_from=m.ValueFrom(path=f"{pod.OUTPUTS}/{name}"))


def _site(key: str) -> str:
    return f"{{{{inputs.parameters.{site.SITE_PREFIX}{key}}}}}"
