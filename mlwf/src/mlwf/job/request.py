"""The request file of `mlwf job`: what a form's reader chose, checked again here, since a form's own checks bind nobody."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from mlwf.errors import WrongUseError
from mlwf.i18n import _
from mlwf.image.base.source import parse_base
from mlwf.line import ENV_NAME

LARGEST = 64 * 1024
TASKS = ("server", "export", "image")
_CONTROL = r"\x00-\x1f\x7f"
_PLAIN = rf"[^{_CONTROL}]"
# As `mlwf_create_image` takes them, plain http but with a checksum, which no form has.
_OBJECT = rf"s3://[^/@?#{_CONTROL}]+/[^?#{_CONTROL}]*[^/?#{_CONTROL}]"
_WEB = rf"https://[^/?#@{_CONTROL}]+([/?]{_PLAIN}*)?"
RULES = {
    "task": "|".join(TASKS),
    "group_name": r"[^/:.\x00-\x1f\x7f][^/:\x00-\x1f\x7f]{0,254}",
    "env_name": ENV_NAME,
    "cloud_storage_bucket_name": r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
    "profile": rf"{_PLAIN}{{1,128}}",
    "at_end": "keep|stop",
    "hours": r"[1-9][0-9]{0,3}",
    "model_name": rf"{_PLAIN}{{1,256}}",
    "model_version": r"[1-9][0-9]{0,9}",
    "model_package": rf"(?=.{{1,2048}}$)({_OBJECT}|{_WEB}|/{_PLAIN}+|models:/+[^/{_CONTROL}]+(/[0-9]+|@[^/@{_CONTROL}]+))",
    "base_container_url": r"((docker|library|oras)://|(docker-archive|oci|oci-archive):/|docker-daemon:|/)[\x21-\x7e]{1,1024}",
    "output_dir": rf"/{_PLAIN}{{0,1024}}",
    "note": rf"{_PLAIN}{{1,255}}",
}
"""Each field's rule, for the whole value. An empty value means that nothing was chosen."""
NEEDED = {
    "server": ("group_name", "env_name", "at_end", "hours"),
    "export": ("group_name", "env_name", "model_name", "model_version"),
    "image": ("model_package", "base_container_url"),
}
# Bases of which the address alone can be looked at, here too: the others are files of the node where the job will run.
NO_FILES = ("docker://", "docker-daemon:")


def meaning(name: str) -> str:
    """What a field must be, for people."""
    texts: dict[str, Callable[[], str]] = {
        "task": lambda: _("server, export or image"),
        "group_name": lambda: _("the name of one of your groups"),
        "env_name": lambda: _("2 to 255 of a-z, 0-9, - and _, a letter or digit first"),
        "cloud_storage_bucket_name": lambda: _("3 to 63 of a-z, 0-9, - and ., a letter or digit first and last"),
        "profile": lambda: _("the name of a profile of ~/.aws/credentials"),
        "at_end": lambda: _("keep or stop"),
        "hours": lambda: _("a whole number of hours"),
        "model_name": lambda: _("the name of a registered model"),
        "model_version": lambda: _("the number of its version"),
        "model_package": lambda: _("s3://…, https://…, models:/NAME/VERSION, models:/NAME@ALIAS or the absolute path of a model.tar.gz"),
        "base_container_url": lambda: _("docker://… or another address that Singularity takes"),
        "output_dir": lambda: _("the absolute path of a folder"),
    }
    return texts[name]() if name in texts else _("text without control characters")


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """One task and its fields, as texts; empty where nothing was chosen."""

    task: str = ""
    group_name: str = ""
    env_name: str = ""
    cloud_storage_bucket_name: str = ""
    profile: str = ""
    at_end: str = ""
    hours: str = ""
    model_name: str = ""
    model_version: str = ""
    model_package: str = ""
    base_container_url: str = ""
    output_dir: str = ""
    note: str = ""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Raises WrongUseError that names the field."""
        if not isinstance(data, dict):
            raise WrongUseError(_("The request is not an object"), cure=_("Write its fields as JSON."))
        known = {each.name for each in fields(cls)}
        for name, value in data.items():
            if name not in known:
                raise WrongUseError(_("{name} is not a field of a request").format(name=name), cure=_("Leave it out."))
            if not isinstance(value, str) or (value and not re.fullmatch(RULES[name], value)):
                raise _refused(name)
        found = cls(**data)
        of_registry = ("group_name", "env_name") if found.from_registry else ()
        for name in ("task", *NEEDED.get(found.task, ()), *of_registry):
            if not getattr(found, name):
                raise _refused(name)
        if found.base_container_url.startswith(NO_FILES):
            parse_base(found.base_container_url)
        return found

    @property
    def from_registry(self) -> bool:
        """Whether an image's package is a model of the server that is named."""
        return self.task == "image" and self.model_package.startswith("models:")

    def as_json(self) -> dict[str, str]:
        """The fields that were chosen."""
        return {name: value for name, value in asdict(self).items() if value}


def read_request(path: Path) -> JobRequest:
    """Raises WrongUseError."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise WrongUseError(_("{where} cannot be used").format(where=path), _("it is too large"), _("Write one request."))
        return JobRequest.from_json(json.loads(text))
    except OSError as error:
        raise WrongUseError(_("{where} cannot be read").format(where=path), error.strerror or "", _("Check its path.")) from error
    except ValueError as error:
        raise WrongUseError(_("{where} cannot be used").format(where=path), _("it is not JSON"), _("Write one request.")) from error


def _refused(name: str) -> WrongUseError:
    return WrongUseError(_("{name} cannot be used").format(name=name), cure=_("Give {meaning}.").format(meaning=meaning(name)))
