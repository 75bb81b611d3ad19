"""What the demo tells its user."""

import shlex

from demo.home import BUCKET, PROFILE, Home
from demo.parts import console_url
from demo.settings import ROOT, Settings
from demo.setup import caller_groups
from demo.store import REGION


def exports(home: Home, settings: Settings) -> str:
    """Lines for a shell. They hold the demo user's keys, for the embedded store alone, and put away what would go before or with them."""
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
        "AWS_SHARED_CREDENTIALS_FILE": str(home.credentials),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "PATH": f"{settings.box_programs}:{settings.programs}:{settings.path}",
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join([*lines, "unset AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_PROFILE AWS_DEFAULT_PROFILE"])


def next_steps(home: Home, settings: Settings) -> str:
    """What a new user does first, by the page's own labels."""
    group = caller_groups()[0]
    file = home.groups / group / "aihub" / "wine" / "yml" / "basic_auth.yml"
    return f"""
App for MLflow Server:  {console_url(home)}

1. Open it: group_name {group}, env_name wine, bucket {BUCKET}, Read credentials, profile {PROFILE}; press Create Service.
2. Press Auth Info Registration. It reads {file}
3. In a second terminal:
     cd {shlex.quote(str(ROOT))}
     eval "$(bin/demo env)"; eval "$(mlwf server env {shlex.quote(group)}/wine)"
     python samples/wine/train.py 0.5 0.5
     python samples/wine/train.py 0.1 0.9
     mlwf_export_model --model-registry-url "$MLFLOW_TRACKING_URI" --model-name ElasticnetWineModel --model-version 2

A server sleeps after {settings.idle_seconds} s without work and wakes by itself. Everything is in {home.path}
"""
