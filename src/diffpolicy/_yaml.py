"""Reading YAML that others wrote: no key twice, no towers of lists, no aliases that grow without end."""

from __future__ import annotations

from typing import Any

import yaml

from diffpolicy import _validate as check
from diffpolicy.errors import InputError

NODES = 10_000
"""Of a file, each alias counted as all that it stands for: methods and options have a few dozen."""
TEXT = 2**18
"""Characters of a file."""


class _Shallow:
    """Composes no tower of lists: PyYAML's scanner takes a time that grows with the square of their depth.

    Raises:
        RecursionError: more than `DEEPEST` lie in each other.
    """

    depth = -1

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > check.DEEPEST:
            raise RecursionError
        node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[misc]
        self.depth -= 1
        return node


class _Values(_Shallow, yaml.SafeLoader):
    pass


class _Texts(_Shallow, yaml.BaseLoader):
    pass


def parse(text: str, name: str, *, texts: bool = False) -> Any:
    """The value of a YAML document.

    Args:
        text: of the file. name: of the file, in messages.
        texts: whether scalars stay texts, so that `10:20` is not 620.

    Raises:
        InputError: not YAML, a key stands twice, or it is larger or deeper than any file of settings.
    """
    if len(text) > TEXT:
        raise InputError(f"{name} is longer than {TEXT:,} characters, the most that is read")
    loader = None
    try:
        loader = (_Texts if texts else _Values)(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _count(root, name, {})
        return loader.construct_document(root)
    except InputError:
        raise
    except RecursionError:
        deepest = f"at most {check.DEEPEST} levels of lists or objects are read"
        raise InputError(f"{name} is nested too deeply: {deepest}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{name} is not YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:
        long = "integer string conversion" in str(error)  # Python's words would tell how to have it all the same
        reason = "a number has thousands of digits" if long else " ".join(str(error).split())
        raise InputError(f"{name} is not YAML: {reason}") from None
    except (LookupError, TypeError, AttributeError, OverflowError) as error:
        # what PyYAML makes of scalars such as !!int x or 2001-99-99
        raise InputError(f"{name} is not YAML: {' '.join(str(error).split())}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _count(node: yaml.Node, name: str, known: dict[int, int]) -> int:
    """Nodes of a tree with all aliases written out; `known` has those that were counted, 0 while they are."""
    if id(node) in known:
        if not known[id(node)]:
            raise InputError(f"{name} holds an alias of something that contains it")
        return known[id(node)]
    known[id(node)] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = list(node.value)
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key in keys:
                raise InputError(f"{name} has the key {check.show(key)} twice")
            keys.add(key)
        children = [part for pair in node.value for part in pair]
    total = 1 + sum(_count(child, name, known) for child in children)
    if total > NODES:
        raise InputError(f"{name} holds more than {NODES:,} values, with aliases expanded")
    known[id(node)] = total
    return total
