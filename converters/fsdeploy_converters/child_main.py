"""The program of the child process: see `child`. Reads requests from standard input until it is closed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fsdeploy.errors import FsdeployError
from fsdeploy_converters.hdf5_walk import Hdf5Walk
from fsdeploy_converters.limits import Hdf5Limits
from fsdeploy_converters.window import Window

_ROOM = 1 << 30


def look_over(request: dict[str, Any]) -> dict[str, Any]:
    """Structure of a file as JSON values, or the error that refuses it."""
    objects, depth, kinds, rank = request["bounds"]
    window = Window(Path(request["path"]), request["offset"], request["size"])
    try:
        walk = Hdf5Walk(window, Hdf5Limits(objects, depth, frozenset(kinds), rank), request["source"])
    except FsdeployError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except OSError as error:
        return {
            "error": "CorruptModelError",
            "message": f"{request['source']} cannot be read: {error.strerror or error}",
        }
    return {
        "datasets": [[path, stored.shape, stored.kind, stored.offset] for path, stored in walk.datasets.items()],
        "children": walk.children,
        "texts": [[path, name, value] for (path, name), value in walk.texts.items()],
    }


def limit_memory() -> None:
    """Let this process grow by a gigabyte at most, where the system can hold it to that."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if used is not None:
        wanted = used * resource.getpagesize() + _ROOM
        resource.setrlimit(resource.RLIMIT_AS, (wanted if soft == resource.RLIM_INFINITY else min(wanted, soft), hard))


def main() -> None:
    """Answer requests, one line each."""
    limit_memory()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(look_over(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
