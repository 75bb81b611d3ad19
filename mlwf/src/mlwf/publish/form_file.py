"""info.yaml as a human edits it: read with line numbers, changed in place, comments and order kept."""

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.plain_yaml import ODD

MAX_BYTES = 1 << 20
WIDTH = 110


class FormFile:
    """The form in a text. Raises MlwfError, with the line, for what is no YAML mapping."""

    def __init__(self, text: str) -> None:
        self._yaml = YAML()  # round trip: plain data only, no objects are made from tags
        self._yaml.preserve_quotes = True
        self._yaml.width = WIDTH
        self._yaml.indent(mapping=2, sequence=2, offset=0)
        self.text = text
        try:
            loaded = self._yaml.load(text)
        except (YAMLError, *ODD) as error:
            raise _broken(error) from error
        if not isinstance(loaded, CommentedMap):
            raise MlwfError(_("info.yaml holds no keys"), cure=_("Use the info.yaml that mlwf_export_model wrote, and fill that in."))
        self._map = loaded

    @property
    def info(self) -> dict[str, Any]:
        """What it says, as far as it stands now."""
        return self._map

    def line(self, path: tuple[str, ...]) -> int:
        """The line of a key, or of the deepest key above it that is there; counted from 1."""
        found, where = 1, self._map
        for key in path:
            if not isinstance(where, CommentedMap) or key not in where:
                break
            try:
                found = where.lc.key(key)[0] + 1
            except (KeyError, TypeError):  # taken over from another mapping (`<<`), it has no line here
                break
            where = where[key]
        return found

    def put(self, path: tuple[str, ...], value: Any) -> bool:
        """Write a value where a key stands or belongs. True if that changed something."""
        where = self._map
        for key in path[:-1]:
            if not isinstance(where.get(key), CommentedMap):
                where[key] = CommentedMap()
            where = where[key]
        if where.get(path[-1]) == value:
            return False
        where[path[-1]] = value
        out = io.StringIO()
        self._yaml.dump(self._map, out)
        self.text = out.getvalue()
        return True


def _broken(error: Exception) -> MlwfError:
    line = error.problem_mark.line + 1 if isinstance(error, MarkedYAMLError) and error.problem_mark else 0
    why = (error.problem or "") if isinstance(error, MarkedYAMLError) else str(error)
    if not line:
        return MlwfError(_("info.yaml is not valid YAML"), why.splitlines()[0] if why else "", _("Correct it."))
    return MlwfError(
        _("info.yaml is not valid YAML in line {line}").format(line=line),
        why,
        _("Correct that line: check colons, quotes and indentation."),
    )
