"""YAML that a stranger wrote, as plain values: bounded in what it becomes, whatever its few lines refer to."""

import yaml

MAX_WEIGHT = 1_000_000
# So many characters weigh as much as a value. What Python reads of longer numbers takes time that grows with their square.
CHARACTERS = 16
LONGEST_NUMBER = 100
NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
# The parser's own, and what its constructors raise for a value that is not what its tag says.
ODD = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class NotPlainError(Exception):
    """It is no YAML of plain values. `endless`: a few levels of aliases become millions of values, or values without an end."""

    def __init__(self, kind: str, *, endless: bool = False) -> None:
        super().__init__(kind)
        self.endless = endless


def load(content: bytes) -> object:
    """The one document, None for an empty one. Raises NotPlainError."""
    loader = yaml.SafeLoader(content)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _weigh(node, {})
        return loader.construct_document(node)
    except ODD as error:
        raise NotPlainError(type(error).__name__) from error
    finally:
        loader.dispose()


def _weigh(node: yaml.Node, known: dict[int, int]) -> int:
    """How much it stands for, with each alias written out. Raises NotPlainError."""
    weight = known.get(id(node))
    if weight is None:
        known[id(node)] = MAX_WEIGHT + 1  # of what contains itself
        if isinstance(node, yaml.ScalarNode):
            if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
                raise NotPlainError("OverflowError")
            weight = 1 + len(node.value) // CHARACTERS
        else:
            parts = [part for each in node.value for part in (each if isinstance(each, tuple) else (each,))]
            weight = 1 + sum(_weigh(part, known) for part in parts)
        known[id(node)] = weight
    if weight > MAX_WEIGHT:
        raise NotPlainError("aliases", endless=True)
    return weight
