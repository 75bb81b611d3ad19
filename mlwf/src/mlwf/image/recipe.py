"""The recipes beside an image: `Singularity` and `Dockerfile`, which build an equivalent one by hand."""

import re
import shlex
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from mlwf.image.base.source import PULLED, BaseSource, Pinned
from mlwf.image.environment.pythons import Python
from mlwf.image.environment.uv_program import uv_version

# Empty counts as unset for Python; the tools give a variable of the host back to the program that is only unset here.
NOTHING = "PYTHONPATH= PYTHONHOME= PYTHONEXECUTABLE= PYTHONPLATLIBDIR="
ENVIRONMENT = ('export PATH="/mlwf/env/bin:$PATH" VIRTUAL_ENV=/mlwf/env PYTHONNOUSERSITE=1', f"export {NOTHING}")
ENV_SH = "# What the model recorded, and nothing of the machine's or the user's own Python.\n" + "\n".join(ENVIRONMENT) + "\n"
README = """\
The Python environment that a model recorded, at /mlwf/env. The model itself lies beside the image.

  singularity shell --nv container.simg                 a shell with the exact python and packages
  singularity exec --nv container.simg python SCRIPT    run a script in it
  singularity run --nv container.simg mlflow models serve -m model -p 1234 --env-manager local
                                                        serve the model; POST to http://127.0.0.1:1234/invocations

/mlwf/requirements.lock names every package, /mlwf/software.cdx.json is the same as CycloneDX,
'singularity inspect container.simg' says what the image was made from.
"""
SINGULARITY = """\
# Builds by hand an image like the one that mlwf_create_image made: the same base, the same packages,
# {python_told}.
# Before: pip install uv=={uv} && cp "$(command -v uv)" .{unpack}
# Then:   singularity build {options}container.simg Singularity
#         (SingularityCE and PRO, as a user: with --fakeroot, or with proot in PATH)
# The base image's content: {digest}{named}
Bootstrap: {bootstrap}
From: {source}

%files
    uv /usr/local/bin/uv
    requirements.lock /mlwf/requirements.lock

%post
    # The base's own are in force here, too.
    export {nothing}
    export UV_PYTHON_INSTALL_DIR=/mlwf/python UV_CACHE_DIR=/tmp/uv-cache UV_LINK_MODE=copy{variables}
    {mirror}uv venv --no-config --relocatable {python} /mlwf/env
    uv pip sync --no-config --require-hashes {wheels}--compile-bytecode --python /mlwf/env /mlwf/requirements.lock
    rm -rf /usr/local/bin/uv /tmp/uv-cache
    # Read after all that the base has; %environment is not, where the base was made by such a recipe itself.
    for line in {environment}; do echo "$line"; done >/.singularity.d/env/92-mlwf.sh
    chmod 755 /.singularity.d/env/92-mlwf.sh

%runscript
    exec "$@"
"""
DOCKERFILE = """\
# Builds by hand a Docker image with what mlwf_create_image put into container.simg: the same base, the same packages,
# {python_told}.
# Before: pip install uv=={uv} && cp "$(command -v uv)" .
# The base image's content: {digest}
{load}FROM {source}
# Another user could not write here; and what the base starts and sets is for its own Python.
USER 0
ENTRYPOINT []
ENV {nothing}
COPY uv /usr/local/bin/uv
COPY requirements.lock /mlwf/requirements.lock
ENV UV_PYTHON_INSTALL_DIR=/mlwf/python UV_CACHE_DIR=/tmp/uv-cache UV_LINK_MODE=copy{variables}
RUN {mirror}uv venv --no-config --relocatable {python} /mlwf/env \\
 && uv pip sync --no-config --require-hashes {wheels}--compile-bytecode --python /mlwf/env /mlwf/requirements.lock \\
 && rm -rf /usr/local/bin/uv /tmp/uv-cache
ENV PATH=/mlwf/env/bin:$PATH VIRTUAL_ENV=/mlwf/env PYTHONNOUSERSITE=1
# It serves as root. For another user, who could not read the files as they are: COPY --chown=1000 model /model, and USER 1000 after it.
COPY model /model
CMD ["mlflow", "models", "serve", "-m", "/model", "-h", "0.0.0.0", "-p", "1234", "--env-manager", "local"]
"""
# The tools' words for kinds of bases, where they are not ours.
BOOTSTRAPS = {"sif": "localimage"}


@dataclass(frozen=True)
class Recipe:
    """What both recipes say. `variables`: what else uv is told, to find what is in the lock; `mirror`: where uv fetches Python, where that
    was said, without a password; `http`: the base's registry speaks plain HTTP.
    """

    base: BaseSource
    pinned: Pinned
    python: Python
    only_wheels: bool
    variables: Mapping[str, str] = field(default_factory=dict)
    mirror: str = ""
    http: bool = False

    def singularity(self, *, portable: bool = False) -> str:
        """`portable`: a base image is named by its content and no mirror, so that the text is the same wherever they lie, however it is
        reached.
        """
        bootstrap, source, unpack = self._bootstrap()
        if portable and not self.base.reference:
            bootstrap, source, unpack = BOOTSTRAPS.get(self.base.kind, self.base.kind), self.pinned.digest, ""
        options, named = ("", "") if portable else ("--no-https " if self.http and self.base.is_remote else "", self._named())
        told = self._shared("" if portable else self.mirror)
        told |= {"bootstrap": bootstrap, "source": source, "unpack": unpack, "options": options, "named": named}
        return SINGULARITY.format(environment=shlex.join(ENVIRONMENT), **told)

    def dockerfile(self) -> str:
        load, source = "", self.pinned.exact.removeprefix("docker://")
        if not self.base.reference:
            load = f"# Docker cannot start from {self.base.text}: load or import it first, with this name.\n"
            source = f"base:{self.pinned.digest[7:19]}"
        return DOCKERFILE.format(load=load, source=source, **self._shared(self.mirror))

    def _bootstrap(self) -> tuple[str, str, str]:
        """The tools' name of the kind of base, what follows `From:`, and what is to be done before."""
        bootstrap, exact = BOOTSTRAPS.get(self.base.kind, self.base.kind), self.pinned.exact
        if self.base.kind == "sif":
            return bootstrap, str(self.base.path), ""
        if self.base.kind == "oci-archive" and exact.endswith(f"@{self.pinned.digest}"):
            # Of an archive no tool takes a digest, of a folder both do.
            unpack = f"\n#         mkdir base-image && tar -xf {shlex.quote(str(self.base.path))} -C base-image"
            return "oci", f"base-image@{self.pinned.digest}", unpack
        if self.base.kind == "docker-daemon":
            exact = self.pinned.source  # by its id: the name may mean another one by now
        return bootstrap, exact.removeprefix(f"{self.base.kind}:").removeprefix("//"), ""

    def _named(self) -> str:
        """A line on the base's name, where that holds nobody to its content, or is not what follows `From:`."""
        if self.base.kind == "docker-daemon":
            return f"\n# The base image's name was {self.base.text}."
        if self.base.kind in PULLED and not re.search(r"@sha256:|:sha256\.", self.base.text):
            return "\n# (the SHA-256 of the file that was taken: 'From:' names a tag, which may have moved since)"
        return ""

    def _shared(self, mirror: str) -> dict[str, str]:
        wheels = "--only-binary :all: " if self.only_wheels else ""
        variables = "".join(f" {name}={value}" for name, value in self.variables.items())
        told = {"uv": uv_version(), "digest": self.pinned.digest, "wheels": wheels, "variables": variables, "nothing": NOTHING}
        return told | self._python(mirror)

    def _python(self, mirror: str) -> dict[str, str]:
        """Which Python, how uv is asked for it, and from where."""
        version, origin = self.python.version, self.python.origin
        if origin == "base":
            return {"python": f"--python {self.python.inside}", "python_told": f"the base's own Python {version}", "mirror": ""}
        told = f"Python {version} as uv fetches it"
        if mirror:
            told += ", from the mirror that was named for the image (a password in its address is left out)"
        if origin == "site":
            told += f".\n# Another build of it than the image's, which is the site's own: a folder {version} in MLWF_PYTHONS"
        variable = f"UV_PYTHON_INSTALL_MIRROR={shlex.quote(quote(mirror, safe=string.punctuation))} " if mirror else ""
        return {"python": f"--managed-python --python {version}", "python_told": told, "mirror": variable}
