"""The keys of an experiment that are paths of files, found beside its file and stored relative to
where it is stored.
"""

from collections.abc import Callable, Mapping
from typing import Any

# by table, whose key `sha256` is the digest of their contents, in this order
FILES: dict[str, tuple[str, ...]] = {
    "data": (
        "file",
        "images",
        "labels",
        "test_images",
        "test_labels",
        "batches",
        "test_batches",
    ),
    "network": ("file",),
    "weights": ("file",),
}
PATHS = tuple(f"{table}.{key}" for table, keys in FILES.items() for key in keys)


def paths_of(data: Mapping[str, Any], name: str) -> list[str]:
    """The paths in a table, in the order of their keys."""
    table = data.get(name)
    values = [table.get(key) for key in FILES[name]] if isinstance(table, Mapping) else []
    lists = [value if isinstance(value, (list, tuple)) else [value] for value in values]
    return [path for paths in lists for path in paths if isinstance(path, str) and path]


def with_paths(data: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The contents of an experiment file, with every path changed."""
    for name, keys in FILES.items():
        table = data.get(name)
        # what is no table or no path is left to the schema, whose message names the key
        if isinstance(table, dict):
            paths = {key: changed_path(table[key], change) for key in keys if key in table}
            data = {**data, name: {**table, **paths}}
    return data


def changed_path(value: Any, change: Callable[[str], str]) -> Any:
    """A path, or a list of paths, changed; all else, and "", as it is."""
    if isinstance(value, (list, tuple)):
        return [changed_path(part, change) for part in value]
    return change(value) if isinstance(value, str) and value else value
