"""The commands of the walk-through's LLM edition from the recorded model to the bucket, as its page has them."""

from pathlib import Path

import pytest

from tests.mlwf.exporting import the_package
from tests.mlwf.tracking import Tracking
from tests.samples.llm import MODEL
from tests.support.box import PASSWORD, USER
from tests.support.pages import WALKTHROUGH, blocks, changed, fill, settle, shell

pytestmark = pytest.mark.box


@pytest.fixture
def home(sleepy: Tracking, tmp_path: Path) -> Path:
    """As the page's first two sections leave it."""
    settle(tmp_path, sleepy.store.owner.access_key, sleepy.store.owner.secret_key)
    login = tmp_path / ".config" / "mlwf" / "tracking.env"
    login.parent.mkdir(parents=True)
    values = {"URI": sleepy.url, "USERNAME": USER, "PASSWORD": f"'{PASSWORD}'"}
    login.write_text("".join(f"export MLFLOW_TRACKING_{name}={value}\n" for name, value in values.items()))
    return tmp_path


def test_the_page_leads_from_the_recorded_model_to_the_bucket(sleepy: Tracking, home: Path) -> None:
    sleepy.register(MODEL, {"MLmodel": b"flavors: {}\n", "adapter.bin": b"x" * 5000})
    export, publish = blocks(WALKTHROUGH / "llm.en.md", 3)
    shell(home, export)
    package = the_package(home)
    fill(package)
    bucket = sleepy.store.make_bucket()
    names = {"MLWFExportModel_20260401120000": package.name, "my-models": bucket, "https://s3.example.org": sleepy.store.endpoint_url}
    # The store here has no ACLs of objects; tests/mlwf/test_publish_ceph.py has one that does.
    said = shell(home, changed(publish, names | {" --acl public-read": ""}))
    assert "Application: registration of a model" in said
    found = sleepy.store.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert "Cerebras-GPT-590M-finetune/1/model.tar.gz" in {each["Key"] for each in found}
