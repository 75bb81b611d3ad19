"""What the notebook needs to know. Each value is taken from the environment first, then from a private file, then from here.

The private file is ~/.config/mlwf/tracking.env (another one: MLFLOW_ENV_FILE), with lines `NAME=value` or `export NAME=value`, as
`mlwf server env GROUP/ENV` prints them. Only you may be able to read it: chmod 600. Write no password into this file.
"""

import os
import shlex
import stat
from pathlib import Path


def _private() -> dict[str, str]:
    file = Path(os.environ.get("MLFLOW_ENV_FILE", "~/.config/mlwf/tracking.env")).expanduser()
    if not file.exists():
        return {}
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise SystemExit(f"{file} can be read by others, and it holds a password: chmod 600 {file}")
    words = (word.partition("=") for word in shlex.split(file.read_text("utf-8"), comments=True) if word != "export")
    return {name: value for name, _equals, value in words}


_FILE = _private()


def _value(name: str, default: str) -> str:
    return os.environ.get(name) or _FILE.get(name) or default


# The tracking server: "URL for access from inside" of the console, and the user of its basic_auth.yml.
MLFLOW_TRACKING_URI = _value("MLFLOW_TRACKING_URI", "")
MLFLOW_TRACKING_USERNAME = _value("MLFLOW_TRACKING_USERNAME", "")
MLFLOW_TRACKING_PASSWORD = _value("MLFLOW_TRACKING_PASSWORD", "")
# Only where artifacts go straight to the object store (artifact access `direct`), e.g. https://s3.abci.ai
MLFLOW_S3_ENDPOINT_URL = _value("MLFLOW_S3_ENDPOINT_URL", "")

# What is trained: names on the Hugging Face hub, or folders and files on this machine.
BASE_MODEL = _value("BASE_MODEL", "cerebras/Cerebras-GPT-590M")
DATASET = _value("DATASET", "kunishou/databricks-dolly-15k-ja")
MODEL_NAME = _value("MODEL_NAME", "Cerebras-GPT-590M")
# yes: the base model is recorded too, for nodes that cannot reach the hub.
WITH_BASE = _value("WITH_BASE", "no").lower() in {"1", "yes", "true"}

# How: 0 steps means whole epochs.
OUTPUT = Path(_value("OUTPUT", "output"))
EPOCHS = float(_value("EPOCHS", "1"))
MAX_STEPS = int(_value("MAX_STEPS", "0"))
BATCH_SIZE = int(_value("BATCH_SIZE", "8"))
LEARNING_RATE = float(_value("LEARNING_RATE", "3e-4"))
MAX_LENGTH = int(_value("MAX_LENGTH", "512"))
LORA_RANK = int(_value("LORA_RANK", "8"))
SEED = int(_value("SEED", "42"))


def apply() -> None:
    """Hand the tracking server's address and login to mlflow, which reads them from the environment."""
    if not MLFLOW_TRACKING_URI:
        raise SystemExit("MLFLOW_TRACKING_URI is not set: export it, or write it into ~/.config/mlwf/tracking.env (mlwf server env)")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_S3_ENDPOINT_URL"):
        if globals()[name]:
            os.environ[name] = globals()[name]
    token = _value("MLFLOW_TRACKING_TOKEN", "")
    if token:
        os.environ["MLFLOW_TRACKING_TOKEN"] = token
