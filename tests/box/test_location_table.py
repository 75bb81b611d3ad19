"""MLflow's own list of requests against our table: an upgrade that brings a new location does not pass unseen."""

import json
import subprocess
from pathlib import Path

import pytest

from tracking_server.mlflow_process.locations import CHECKED_FIELDS

pytestmark = pytest.mark.box
# Run with MLflow's interpreter: every text in every request message of every service whose name could be a location.
LIST_CODE = r"""
import inspect, json, re
from google.protobuf.descriptor import FieldDescriptor as Field
from mlflow.protos import mlflow_artifacts_pb2, model_registry_pb2, service_pb2, webhooks_pb2
from mlflow.server import handlers
LOCATION_LIKE = re.compile(
    "uri|url|location|path|(^|_)source($|_[^r]|_type)|(^|_)root($|_[^c])|dir"
    "|dest|bucket|storage|(^|_)schema$|profile|table"
)
def walk(descriptor, trail, seen, found):
    for field in descriptor.fields:
        here = [*trail, field.name]
        if field.message_type is not None:
            if field.message_type.full_name not in seen:
                walk(field.message_type, here, {*seen, field.message_type.full_name}, found)
        elif field.type in (Field.TYPE_STRING, Field.TYPE_BYTES) and LOCATION_LIKE.search(field.name):
            found.add(".".join(here))
services = [service_pb2.MlflowService, model_registry_pb2.ModelRegistryService]
services += [mlflow_artifacts_pb2.MlflowArtifactsService, webhooks_pb2.WebhookService]
fields = set()
for service in services:
    for method in service.DESCRIPTOR.methods:
        walk(method.input_type, [method.input_type.name], {method.input_type.full_name}, fields)
own_parsers = set()
for path, handler, methods in handlers.get_endpoints():
    source = inspect.getsource(inspect.unwrap(handler))
    own_reading = r"request\.(json|data|get_json|form|files|values)|_get_(normalized_|validated_flask_)?request_json"
    own_reading += "|_get_workspace_request_message"
    reads = re.search(own_reading, source)
    if reads and "_get_request_message(" not in source:
        own_parsers.add(handler.__name__)
print(json.dumps({"fields": sorted(fields), "own_parsers": sorted(own_parsers)}))
"""
# What looks like a location and is none for the server: `source` of a dataset is text that is shown; paths are inside a run's own location
# and MLflow refuses `..` in them; workspaces are off; a webhook's URL is https only and checked by MLflow against private addresses.
HARMLESS_FIELDS = frozenset(
    {
        "LogInputs.datasets.dataset.source",
        "LogInputs.datasets.dataset.source_type",
        "LogInputs.datasets.dataset.schema",
        "LogInputs.datasets.dataset.profile",
        "CreateDataset.source",
        "CreateDataset.schema",
        "CreateDataset.profile",
        "CreateWorkspace.default_artifact_root",
        "CreateWorkspace.trace_archival_config.location",
        "UpdateWorkspace.default_artifact_root",
        "UpdateWorkspace.trace_archival_config.location",
        "ListArtifacts.path",
        "CreatePresignedUploadUrl.path",
        "CreatePresignedDownloadUrl.path",
        "CreateMultipartUpload.path",
        "CompleteMultipartUpload.path",
        "CompleteMultipartUpload.parts.url",
        "AbortMultipartUpload.path",
        "ListLoggedModelArtifacts.artifact_directory_path",
        "CreatePromptOptimizationJob.source_prompt_uri",
        "CreateWebhook.url",
        "UpdateWebhook.url",
        "UpdateAssessment.update_mask.paths",
        "UpdateAssessment.assessment.source.source_id",
        "CreateAssessment.assessment.source.source_id",
        "StartTraceV3.trace.trace_info.assessments.source.source_id",
        "StartTraceV3.trace.trace_info.trace_location.inference_table.full_table_name",
        "SearchTracesV3.locations.inference_table.full_table_name",
        "GetOnlineTraceDetails.source_inference_table",
        "GetOnlineTraceDetails.source_databricks_request_id",
    }
)
# Handlers that read a request otherwise than by the parser that is checked: none of them takes a location.
# Workspaces are switched off, and so are the jobs that scorers, evaluation and issue detection would start; GraphQL has queries only, and
# those use locations that the second check sees.
OWN_PARSERS = {
    "_create_workspace_handler",
    "_generate_demo",
    "_get_online_scoring_configs",
    "_graphql",
    "_invoke_genai_evaluate_handler",
    "_invoke_issue_detection_handler",
    "_invoke_scorer_handler",
    "_update_workspace_handler",
    "_upsert_online_scoring_config",
}


@pytest.fixture(scope="module")
def listed(box_environment: Path) -> dict[str, list[str]]:
    done = subprocess.run([box_environment / "bin" / "python", "-c", LIST_CODE], capture_output=True, text=True, check=True, cwd="/tmp")
    document: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return document


def test_every_location_like_field_is_checked_or_known_to_be_harmless(listed: dict[str, list[str]]) -> None:
    checked = {f"{kind}.{field}" for kind, field in CHECKED_FIELDS}
    assert set(listed["fields"]) == checked | HARMLESS_FIELDS


def test_every_handler_uses_the_checked_parser(listed: dict[str, list[str]]) -> None:
    assert set(listed["own_parsers"]) == OWN_PARSERS
