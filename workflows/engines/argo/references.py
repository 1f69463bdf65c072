"""Checks that everything a WorkflowTemplate refers to is there, once: neither hera nor the API server looks.

Knows nothing of hera and little of our pipeline: it reads the rendered document as Argo will.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]

_PLACE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_INPUT = re.compile(r"inputs\.parameters\.([A-Za-z0-9_-]+)")
_WORKFLOW = re.compile(r"workflow\.parameters\.([A-Za-z0-9_-]+)")
_IN_EXPRESSION = re.compile(r"workflow\.parameters(?:\.([A-Za-z0-9_]+)|\['([A-Za-z0-9_-]+)'\])")
"""In an expression a minus is one, so that a name that holds one is written in brackets."""
_PLAIN = re.compile(r"workflow\.name|(?:inputs|workflow)\.parameters\.[A-Za-z0-9_-]+")
_OUTPUT = re.compile(r"tasks\.([A-Za-z0-9_-]+)\.outputs\.parameters\.([A-Za-z0-9_-]+)")
_NEED = re.compile(r"([A-Za-z0-9_-]+)(?:\.([A-Za-z]+))?")
_AFTER = re.compile(r"^--after=(.*)$", re.MULTILINE)
_ENDS = frozenset({"", "Succeeded", "Failed", "Errored", "Skipped", "Omitted"})
_ARGOS = frozenset({"wait", "init", "supervisor"})
"""Containers that Argo adds by itself."""


def faults(document: Document) -> list[str]:
    """What is wrong with a WorkflowTemplate, one sentence each; empty where nothing is."""
    spec = document["spec"]
    templates = {template["name"]: template for template in spec["templates"]}
    found = [*_doubles("template", (template["name"] for template in spec["templates"]))]
    if spec["entrypoint"] not in templates:
        found.append(f"entrypoint {spec['entrypoint']}: no such template")
    found += _of_workflow_parameters(spec)
    for template in spec["templates"]:
        where = template["name"]
        found += [f"{where}: {fault}" for fault in (*_of_inputs(template), *_of_pod(template))]
        found += [f"{where}: {fault}" for fault in _of_tasks(template, templates)]
    return found + sorted(_unused(spec, templates))


def _of_workflow_parameters(spec: Document) -> Iterator[str]:
    declared = _names(spec.get("arguments", {}).get("parameters", ()))
    yield from _doubles("workflow parameter", declared)
    places = _places(spec)
    used = {name for place in places if not place.startswith("=") for name in _WORKFLOW.findall(place)}
    for place in places:
        if place.startswith("="):
            used |= {dotted or quoted for dotted, quoted in _IN_EXPRESSION.findall(place)}
    yield from (f"workflow parameter {name} is not declared" for name in sorted(used - set(declared)))
    yield from (f"workflow parameter {name} is not used" for name in sorted(set(declared) - used))


def _of_inputs(template: Document) -> Iterator[str]:
    declared = _inputs(template)
    yield from _doubles("input", declared)
    used = set(_found(_INPUT, template))
    yield from (f"input {name} is not declared" for name in sorted(used - set(declared)))
    yield from (f"input {name} is not used" for name in sorted(set(declared) - used))


def _of_pod(template: Document) -> Iterator[str]:
    containers = _containers(template)
    if not containers:
        return
    names = [container.get("name", "main") for container in containers]
    yield from _doubles("container", names)
    yield from (f"container {name} has a name of Argo's" for name in sorted(_ARGOS.intersection(names)))
    yield from (f"{place} stands for nothing in a pod" for place in _places(template) if not _PLAIN.fullmatch(place))
    if template.get("outputs") and "main" not in names:
        yield "has outputs, and no container called main, the only one whose outputs Argo takes"
    volumes = [volume["name"] for volume in template.get("volumes", ())]
    yield from _doubles("volume", volumes)
    for name, container in zip(names, containers, strict=True):
        yield from (f"{name}: {fault}" for fault in _of_container(container, names, volumes))
    mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts", ())}
    yield from (f"volume {name} is not mounted" for name in sorted(set(volumes) - mounted))


def _of_container(container: Document, names: list[str], volumes: list[str]) -> Iterator[str]:
    mounts = container.get("volumeMounts", ())
    yield from _doubles("mount at", (mount["mountPath"] for mount in mounts))
    yield from _doubles("variable", _names(container.get("env", ())))
    yield from (f"mounts {mount['name']}: no such volume" for mount in mounts if mount["name"] not in volumes)
    needs = [*container.get("dependencies", ()), *_AFTER.findall("\n".join(container.get("args", ())))]
    yield from (f"needs {need}: no such container" for need in needs if need not in names)
    if not container.get("command"):
        yield "has no command, so that Argo would ask the registry for it"


def _of_tasks(template: Document, templates: Mapping[str, Document]) -> Iterator[str]:
    tasks = {task["name"]: task for task in template.get("dag", {}).get("tasks", ())}
    yield from _doubles("task", _names(template.get("dag", {}).get("tasks", ())))
    for name, task in tasks.items():
        called = templates.get(task["template"])
        if called is None:
            yield f"{name}: no template {task['template']}"
            continue
        yield from (f"{name}: {fault}" for fault in _of_arguments(task, called))
        yield from (f"{name}: {fault}" for fault in _of_needs(task, tasks))
        yield from (f"{name}: {fault}" for fault in _of_outputs(task, tasks, templates))


def _of_arguments(task: Document, called: Document) -> Iterator[str]:
    given = _names(task.get("arguments", {}).get("parameters", ()))
    yield from _doubles("argument", given)
    declared = called.get("inputs", {}).get("parameters", ())
    yield from (f"argument {name}: no such input" for name in given if name not in _names(declared))
    needed = {each["name"] for each in declared if not {"value", "default", "valueFrom"} & each.keys()}
    yield from (f"argument {name} is missing" for name in sorted(needed - set(given)))


def _of_needs(task: Document, tasks: Mapping[str, Document]) -> Iterator[str]:
    for name, end in _NEED.findall(task.get("depends", "")):
        if name not in tasks:
            yield f"depends on {name}: no such task"
        if end not in _ENDS:
            yield f"depends on {name}.{end}: no task ends so"


def _of_outputs(task: Document, tasks: Mapping[str, Document], templates: Mapping[str, Document]) -> Iterator[str]:
    needed = {name for name, _ in _NEED.findall(task.get("depends", ""))}
    for name, output in dict.fromkeys(_found(_OUTPUT, task)):
        if name not in needed:
            yield f"reads an output of {name}, on which it does not depend"
            continue
        source = templates.get(tasks.get(name, {}).get("template", ""), {})
        if output not in _names(source.get("outputs", {}).get("parameters", ())):
            yield f"reads {output} of {name}, which has no such output"


def _unused(spec: Document, templates: Mapping[str, Document]) -> Iterator[str]:
    called = {task["template"] for template in spec["templates"] for task in template.get("dag", {}).get("tasks", ())}
    yield from (
        f"template {name} is never run" for name, each in templates.items() if _containers(each) and name not in called
    )


def _containers(template: Document) -> list[Document]:
    main = [template["container"]] if "container" in template else []
    return [*main, *template.get("containerSet", {}).get("containers", ()), *template.get("sidecars", ())]


def _inputs(template: Document) -> list[str]:
    return _names(template.get("inputs", {}).get("parameters", ()))


def _names(things: Iterable[Document]) -> list[str]:
    return [thing["name"] for thing in things]


def _places(part: Any) -> list[str]:
    return _PLACE.findall(json.dumps(part))


def _found(pattern: re.Pattern[str], part: Any) -> list[Any]:
    return [found for place in _places(part) for found in pattern.findall(place)]


def _doubles(what: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"{what} {name} is there twice" for name, times in Counter(names).items() if times > 1)
