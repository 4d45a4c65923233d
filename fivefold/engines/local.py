"""The in-process engine: every site's node in this process, one after the other. A rehearsal of the whole consortium."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fivefold.errors import SourceNotFound
from fivefold.site.folder import opened
from fivefold.site.node import Node


class LocalEngine:
    """Carries messages to nodes by calling them."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = dict(nodes)

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """(site, reply) as they come; nothing is kept."""
        for name in requests:
            if name in self.nodes:
                yield name, self.nodes[name].answer(requests[name])

    def close(self) -> None:
        """Let the nodes forget their runs' secrets; what is on their disks stays."""
        for node in self.nodes.values():
            node.close()


def local_engine(sites: Path, names: tuple[str, ...]) -> LocalEngine:
    """Nodes for the site folders `sites/NAME`, one after the other. Raises `SourceNotFound` naming what is missing."""
    return LocalEngine(local_nodes(sites, names))


def local_nodes(sites: Path, names: tuple[str, ...]) -> dict[str, Node]:
    """Nodes for the site folders `sites/NAME`. Raises `SourceNotFound` naming what is missing."""
    missing = [name for name in names if not (sites / name / "site.yaml").exists()]
    if missing:
        raise SourceNotFound(
            f"there is no site folder for {', '.join(missing)} in {sites}",
            help="Make one with `fivefold site init`, or say where the folders are with --sites.",
        )
    return {name: Node(opened(sites / name)) for name in names}
