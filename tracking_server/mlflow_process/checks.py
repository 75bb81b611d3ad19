"""Puts the check of locations into MLflow, at two places where no spelling gets past.

Where a request says a location: on the message that MLflow itself has made of the body and will act on, so that neither the content type
nor doubled keys, compression or another API version matters. Where a location is used: when MLflow makes the object that reads and
writes it, whatever the way by which the location came into the database.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from tracking_server.mlflow_process.locations import CHECKED_FIELDS, CHECKED_TAGS, PROMPT_SOURCES, Locations


def install(locations: Locations) -> None:
    """Into this process's MLflow, once, before it serves."""
    from mlflow.exceptions import MlflowException  # type: ignore[import-not-found]  # MLflow is in the box's environment only
    from mlflow.server import handlers  # type: ignore[import-not-found]
    from mlflow.store.artifact.artifact_repository_registry import ArtifactRepositoryRegistry  # type: ignore[import-not-found]

    def check(location: str) -> None:
        reason = locations.refusal(location)
        if reason is not None:
            raise MlflowException.invalid_parameter_value(reason)

    parse = handlers._get_request_message  # noqa: SLF001  # the one place where MLflow reads requests; its version is pinned
    make_repository = ArtifactRepositoryRegistry.get_artifact_repository

    @functools.wraps(parse)
    def parse_checked(*arguments: Any, **options: Any) -> Any:
        message = parse(*arguments, **options)
        for location in locations_in(message):
            check(location)
        return message

    @functools.wraps(make_repository)
    def make_checked(self: Any, artifact_uri: str, *arguments: Any, **options: Any) -> Any:
        check(artifact_uri)
        return make_repository(self, artifact_uri, *arguments, **options)

    handlers._get_request_message = parse_checked  # noqa: SLF001  # as above
    ArtifactRepositoryRegistry.get_artifact_repository = make_checked


def locations_in(message: Any) -> Iterator[str]:
    """The locations that a request's message says, in its checked fields and in its tags at any depth."""
    descriptor = message.DESCRIPTOR
    for kind, field in CHECKED_FIELDS:
        if descriptor.name == kind and (value := getattr(message, field)) and not _is_prompt(message, value):
            yield value
    yield from _tag_locations(message)


def _is_prompt(message: Any, source: str) -> bool:
    return bool(message.DESCRIPTOR.name == "CreateModelVersion" and source in PROMPT_SOURCES)


def _tag_locations(message: Any) -> Iterator[str]:
    names = message.DESCRIPTOR.fields_by_name
    if "key" in names and "value" in names and message.key in CHECKED_TAGS:
        yield str(message.value)
    for field, value in message.ListFields():
        if field.message_type is None or field.name in ("metrics", "params"):
            continue
        if field.message_type.GetOptions().map_entry:
            yield from (str(value[key]) for key in CHECKED_TAGS if key in value)
        elif field.is_repeated:
            for item in value:
                yield from _tag_locations(item)
        else:
            yield from _tag_locations(value)
