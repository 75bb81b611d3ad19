"""What the notebook needs to know. Each value is taken from the environment first, then from a private file, then from here.

The private file is ~/.config/mlwf/tracking.env (another one: MLFLOW_ENV_FILE), with lines `NAME=value`, `export NAME=value` or
`unset NAME`, as `mlwf server env GROUP/ENV` prints them. Only you may be able to read it: chmod 600. Write no password into this file.

The tracking server (SERVER, below) has no value here, and a login is sent to no server but its own: where the environment names another
MLFLOW_TRACKING_URI than the private file, or the file names none, the file's login is not used.
"""

import os
import shlex
import stat
import sys
from pathlib import Path

URI, USERNAME, PASSWORD, TOKEN = (f"MLFLOW_TRACKING_{word}" for word in ("URI", "USERNAME", "PASSWORD", "TOKEN"))
# "URL for access from inside" of the console, and a user of the server's basic_auth.yml, or a token. MLFLOW_S3_ENDPOINT_URL only where
# artifacts go straight to the object store (artifact access `direct`), e.g. https://s3.abci.ai
# MLFLOW_REGISTRY_URI only where models are registered on another server.
SERVER = (URI, USERNAME, PASSWORD, TOKEN, "MLFLOW_S3_ENDPOINT_URL", "MLFLOW_REGISTRY_URI")


def _place() -> Path:
    return Path(os.environ.get("MLFLOW_ENV_FILE", "~/.config/mlwf/tracking.env")).expanduser()


def _private() -> tuple[dict[str, str], set[str]]:
    """What the private file sets, and the names that it unsets."""
    file, found, unset, command = _place(), {}, set(), ""
    if not file.exists():
        return found, unset
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise SystemExit(f"{file} can be read by others, and it holds a password: chmod 600 {file}")
    for word in shlex.split(file.read_text("utf-8"), comments=True):
        name, equals, value = word.partition("=")
        if equals:
            found[name] = value
        elif word in {"export", "unset"}:
            command = word
        elif command == "unset":
            found.pop(word, None)
            unset.add(word)
    return found, unset


_FILE, _ = _private()
# What apply() took from the file and put into the environment: no choice of yours. Loading this module again keeps it.
_PUT: dict[str, str] = globals().get("_PUT", {})


def _value(name: str, default: str) -> str:
    return os.environ.get(name) or _FILE.get(name) or default


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


def _server() -> dict[str, str]:
    """Address and login of the tracking server, as environment and private file have them now."""
    file, unset = _private()
    given = {name: value for name in SERVER if (value := os.environ.get(name)) and value != _PUT.get(name)}
    if URI in given and given[URI].rstrip("/") != file.get(URI, "").rstrip("/"):
        if {USERNAME, PASSWORD, TOKEN} & file.keys():
            whose = f"is for {file[URI]}" if file.get(URI) else "names no server"
            print(f"{_place()} {whose}: its login is not sent to {given[URI]}")
        return given
    if TOKEN in file and PASSWORD not in file:  # mlflow would send these instead
        unset = unset | {USERNAME, PASSWORD}
    given = {name: value for name, value in given.items() if name not in unset}
    if TOKEN in given and PASSWORD not in given:
        file = {name: value for name, value in file.items() if name not in {USERNAME, PASSWORD}}
    elif {USERNAME, PASSWORD} <= file.keys() and PASSWORD not in given:  # a password is one user's
        given.pop(USERNAME, None)
    return {name: value for name, value in {**file, **given}.items() if name in SERVER and value}


def apply() -> None:
    """Hand the tracking server's address and login to mlflow, which reads them from the environment.

    Each call reads the private file anew: correct it, and call this again. What you set in the environment meanwhile counts, too.
    """
    if Path(sys.argv[0]).name == "ipykernel_launcher.py":
        sys.argv[0] = __file__  # mlflow records the git commit of this file's folder: in a notebook it would look beside Jupyter's program
    found = _server()
    if URI not in found:
        raise SystemExit("MLFLOW_TRACKING_URI is not set: export it, or write it into ~/.config/mlwf/tracking.env (mlwf server env)")
    for name in SERVER:
        if name not in found:
            os.environ.pop(name, None)
        elif os.environ.get(name) != found[name]:
            os.environ[name] = _PUT[name] = found[name]
