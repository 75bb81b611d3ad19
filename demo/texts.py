"""What the demo tells its user."""

import shlex

from demo.home import BUCKET, PROFILE, Home
from demo.parts import console_url
from demo.settings import ROOT, Settings
from demo.setup import caller_groups
from demo.store import REGION


def exports(home: Home, settings: Settings) -> str:
    """`export` lines for a shell. They hold the demo user's keys, for the embedded store alone."""
    store = home.store()
    user = store.users[PROFILE]
    values = {
        "DEMO_HOME": str(home.path),
        "DEMO_GROUP": caller_groups()[0],
        "DEMO_BUCKET": BUCKET,
        "CONSOLE_URL": console_url(home),
        "SERVICE_SOCKET": str(home.socket),
        "MLWF_SERVICE": f"unix://{home.socket}",
        "S3_ENDPOINT_URL": store.endpoint_url,
        "AWS_ENDPOINT_URL_S3": store.endpoint_url,
        "MLFLOW_S3_ENDPOINT_URL": store.endpoint_url,
        "AWS_ACCESS_KEY_ID": user.access_key,
        "AWS_SECRET_ACCESS_KEY": user.secret_key,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "PATH": f"{settings.box_programs}:{settings.programs}:{settings.path}",
    }
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


def next_steps(home: Home, settings: Settings) -> str:
    """What a new user does first, by the page's own labels."""
    group = caller_groups()[0]
    file = home.groups / group / "aihub" / "wine" / "yml" / "basic_auth.yml"
    return f"""
App for MLflow Server:  {console_url(home)}

1. Open it, fill in  group_name {group},  env_name wine,  cloud_storage_bucket_name {BUCKET},
   choose Read credentials and the profile {PROFILE}, and press Create Service.
2. Register a user for jobs: write this file, then press Auth Info Registration.
   mkdir -p {shlex.quote(str(file.parent))}
   (umask 077; echo "{{'user_name': 'alice', 'pass': '…'}}" > {shlex.quote(str(file))})
3. In another shell, train twice and export the second version (URL: the page's "URL for access from inside"):
   eval "$({ROOT}/bin/demo env)"
   export MLFLOW_TRACKING_URI=URL MLFLOW_TRACKING_USERNAME=alice MLFLOW_TRACKING_PASSWORD=…
   python {ROOT}/samples/wine/train.py 0.5 0.5
   python {ROOT}/samples/wine/train.py 0.1 0.9
   mlwf_export_model --model-registry-url $MLFLOW_TRACKING_URI --model-name ElasticnetWineModel --model-version 2
Servers sleep after {settings.idle_seconds} s without work and wake by themselves. Everything is in {home.path}
"""
