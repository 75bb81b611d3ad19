"""From a name and a version or alias to where the model's files are, and all that the registry knows about it."""

import re
from dataclasses import dataclass, field
from typing import Any

from mlwf.errors import MlwfError, WrongUseError
from mlwf.export.api import Json, RegistryError, TrackingApi
from mlwf.i18n import _
from mlwf.transfer.paths import check_path

MAX_HOPS = 6
SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*):")


@dataclass(frozen=True)
class Location:
    """Where files are: `proxied` is a path under the server's artifact root, `s3` a bucket and a key prefix. No slash at the ends."""

    kind: str
    path: str
    bucket: str = ""


@dataclass(frozen=True)
class ModelVersion:
    """What the registry says. `version` and `model` are MLflow's objects; `run` and `logged_model` are empty where there are none."""

    name: str
    number: str
    version: Json
    location: Location
    model: Json = field(default_factory=dict)
    run: Json = field(default_factory=dict)
    logged_model: Json = field(default_factory=dict)


def find(api: TrackingApi, name: str, *, number: str | None = None, alias: str | None = None) -> ModelVersion:
    """The model version with its run and logged model. Raises RegistryError (it lists what there is) or MlwfError."""
    version = _version(api, name, number, alias)
    number = str(version["version"])
    uri = str(api.get("model-versions/get-download-uri", name=name, version=number).get("artifact_uri") or version.get("source") or "")
    resolver = _Resolver(api)
    location = resolver.resolve(uri)
    run_id, model_id = str(version.get("run_id") or ""), str(version.get("model_id") or "") or _model_id(str(version.get("source") or ""))
    return ModelVersion(
        name=name,
        number=number,
        version=version,
        location=location,
        model=_dict(api.get("registered-models/get", name=name).get("registered_model")),
        run=resolver.optional("runs/get", "run", run_id=run_id) if run_id else {},
        logged_model=resolver.optional(f"logged-models/{model_id}", "model") if model_id else {},
    )


def _version(api: TrackingApi, name: str, number: str | None, alias: str | None) -> Json:
    if (number is None) == (alias is None):
        raise WrongUseError(_("Give either a version or an alias of the model"))
    try:
        if alias is not None:
            answer = api.get("registered-models/alias", name=name, alias=alias)
        else:
            answer = api.get("model-versions/get", name=name, version=str(number))
    except RegistryError as error:
        if error.code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        raise _unknown(api, name, number or f"@{alias}") from error
    version = _dict(answer.get("model_version"))
    if not version.get("version"):
        raise RegistryError(_("The tracking server's answer about {name} is not understood").format(name=name))
    return version


def _unknown(api: TrackingApi, name: str, wanted: str) -> RegistryError:
    try:
        model = _dict(api.get("registered-models/get", name=name).get("registered_model"))
    except RegistryError:
        found = api.get("registered-models/search", max_results="20").get("registered_models") or []
        known = ", ".join(str(each.get("name")) for each in found) or "-"
        what = _("There is no registered model {name}").format(name=name)
        return RegistryError(what, cure=_("Choose one that exists: {known}.").format(known=known), code="NO_MODEL")
    quoted = name.replace("'", "''")
    versions = api.get("model-versions/search", filter=f"name='{quoted}'", max_results="50").get("model_versions") or []
    aliases = [f"@{each.get('alias')}" for each in model.get("aliases") or []]
    known = ", ".join([*sorted((str(each.get("version")) for each in versions), key=lambda text: text.zfill(9)), *aliases]) or "-"
    what = _("The model {name} has no version {wanted}").format(name=name, wanted=wanted)
    return RegistryError(what, cure=_("Choose one that it has: {known}.").format(known=known), code="NO_VERSION")


def _model_id(source: str) -> str:
    found = re.fullmatch(r"models:/+(m-[0-9a-zA-Z]+)(/.*)?", source)
    return found.group(1) if found else ""


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


class _Resolver:
    """Follows runs:/, models:/ and the like, through the API only, to the place where files can be read."""

    def __init__(self, api: TrackingApi) -> None:
        self._api = api

    def resolve(self, uri: str) -> Location:
        for _hop in range(MAX_HOPS):
            scheme = SCHEME.match(uri)
            kind = scheme.group(1).lower() if scheme else ""
            if kind == "runs":
                uri = self._of_run(uri)
            elif kind == "models":
                uri = self._of_model(uri)
            else:
                return self._final(kind, uri)
        raise RegistryError(_("The source of the model version leads in a circle"), cure=_("Register the model again."))

    def optional(self, route: str, key: str, **params: str) -> Json:
        """An object that may be gone (a deleted run) or unknown to an older server: then empty."""
        try:
            return _dict(self._api.get(route, **params).get(key))
        except RegistryError as error:
            if error.code in {"RESOURCE_DOES_NOT_EXIST", "NOT_MLFLOW", "INVALID_PARAMETER_VALUE", "ENDPOINT_NOT_FOUND"}:
                return {}
            raise

    def _of_run(self, uri: str) -> str:
        run_id, _slash, path = uri.partition(":")[2].strip("/").partition("/")
        run = _dict(self._api.get("runs/get", run_id=run_id).get("run"))
        first, _slash, rest = path.partition("/")
        # Since MLflow 3 what a run logged as a model lies with the logged model, not among the run's artifacts.
        for output in _dict(run.get("outputs")).get("model_outputs") or []:
            model = self.optional(f"logged-models/{output.get('model_id')}", "model")
            if _dict(model.get("info")).get("name") == first:
                return _join(str(model["info"].get("artifact_uri")), rest)
        return _join(str(_dict(run.get("info")).get("artifact_uri") or ""), path)

    def _of_model(self, uri: str) -> str:
        name, _slash, rest = uri.partition(":")[2].strip("/").partition("/")
        if re.fullmatch(r"m-[0-9a-zA-Z]+", name):
            model = _dict(self._api.get(f"logged-models/{name}").get("model"))
            return _join(str(_dict(model.get("info")).get("artifact_uri") or ""), rest)
        number, _slash, path = rest.partition("/")
        if "@" in name and not number.isdecimal():
            name, _at, alias = name.rpartition("@")
            number, path = str(_version(self._api, name, None, alias)["version"]), rest
        return _join(str(self._api.get("model-versions/get-download-uri", name=name, version=number).get("artifact_uri") or ""), path)

    def _final(self, kind: str, uri: str) -> Location:
        rest = uri.partition(":")[2]
        authority, path = "", rest
        if rest.startswith("//"):
            authority, _slash, path = rest[2:].partition("/")
        path = path.strip("/")
        if kind == "mlflow-artifacts" and not authority:
            return Location("proxied", check_path(path))
        if kind in {"s3", "s3a"} and authority:
            return Location("s3", check_path(path), authority)
        raise MlwfError(
            _("The model's files are at {uri}").format(uri=uri[:300] or "-"),
            _("this place can be read neither through the tracking server nor from an S3 store"),
            _("Export it on the host that holds the files, or log the model to a server that keeps artifacts in S3."),
        )


def _join(uri: str, path: str) -> str:
    return f"{uri.rstrip('/')}/{path}" if path else uri
