"""mlwf_create_image with real SingularityCE, by its setuid starter and without; all other tests of images have Apptainer.

MLWF_TEST_TOOL=singularity lets those have SingularityCE, too.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlwf.creating import create, sha256
from tests.mlwf.models import Models, answer_of
from tests.support.apptainer import Ground, apptainer_ground, base_python, registry
from tests.support.box import environment
from tests.support.singularity import singularity_ground, why_not

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def ce() -> Iterator[Ground]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with singularity_ground() as made:
        yield made


@pytest.fixture(scope="module")
def ce_models(ce: Ground) -> Models:
    return Models(environment(), ce)


def test_from_a_registry_to_an_image_that_answered(ce: Ground, ce_models: Models) -> None:
    with registry(ce) as address:
        asked = ("--json", "--no-https")
        made = answer_of(create(ce, ce_models.regression(), *asked, base=f"docker://{address}/base:1"))
        again = answer_of(create(ce, ce_models.regression(), *asked, base=f"docker://{address}/base:1"))
    assert made["proof"]["state"] == "answered"  # type: ignore[index]
    assert (made["cached"], again["cached"]) == (False, True)
    image = Path(str(made["image"]))
    inside = ce.run(["singularity", "exec", "--nv", image, "sh", "-c", "command -v python; python -V; mlflow --version; echo $OF_THE_BASE"])
    assert inside.stdout.splitlines() == ["/mlwf/env/bin/python", f"Python {base_python()}", "mlflow, version 3.17.2", "kept"]
    assert "mlflow models serve" in ce.run(["singularity", "run", image]).stdout
    assert ce.run(["sh", "-c", 'echo "python -V" | singularity shell --nv "$0"', image]).stdout == f"Python {base_python()}\n"
    labels = json.loads(ce.run(["singularity", "inspect", "--json", image]).stdout)["data"]["attributes"]["labels"]
    assert labels["mlwf.container-tool"].startswith("singularity-ce 4.")
    assert labels["mlwf.mksquashfs"].endswith(" -comp gzip -Xcompression-level 1")
    assert "uv pip sync" in ce.run(["singularity", "inspect", "--deffile", image]).stdout
    assert not list(ce.home.glob(".singularity/cache/*/*")), "what it fetched is kept once, by us"


def test_the_same_bytes_again_without_privileges(ce: Ground, ce_models: Models) -> None:
    """In user namespaces alone, as where `allow setuid = no`; the proof too."""
    one = answer_of(create(ce, ce_models.tiny(), "--no-test", "--json"))
    other = answer_of(create(ce, ce_models.tiny(), "--no-test", "--json", MLWF_CACHE=str(ce.home / "other"), SINGULARITY_USERNS="1"))
    assert not other["cached"]
    assert sha256(Path(str(one["image"]))) == sha256(Path(str(other["image"])))


def test_an_image_of_apptainer_opens_when_it_is_packed_with_gzip(ce: Ground, ce_models: Models) -> None:
    images = {}
    with apptainer_ground() as apptainer:
        tiny = Models(environment(), apptainer).tiny()
        for compression in ("gzip", "zstd"):
            made = answer_of(create(apptainer, tiny, "--no-test", "--json", "--compression", compression))
            images[compression] = ce.give(Path(shutil.copy(str(made["image"]), ce.home / f"{compression}.sif")))
    inside = ce.run(["singularity", "exec", images["gzip"], "sh", "-c", "python -c 'import six' && echo $OF_THE_BASE"])
    assert inside.stdout == "kept\n", inside.stderr
    assert "unknown compression algorithm" in ce.run(["singularity", "exec", images["zstd"], "true"]).stderr, "it may be the default now"
    told = create(ce, ce_models.tiny(), "--no-test", base=str(images["zstd"]), status=1)
    assert "packed with zstd, which singularity-ce" in told
