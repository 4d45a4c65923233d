"""Put JSON-LD contexts into an HTTP cache, so that a crate is validated without a network.

Runs inside the validator's own environment (it needs `requests_cache`, which Fivefold does not):
`python seed.py CACHE CONTEXT.json …`. Each context is stored under the address in its `@id`, as if it had been fetched there.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any


def seed(cache: str, paths: list[str]) -> None:
    """Store each file in the cache `CACHE.sqlite`. Nothing is sent anywhere: an adapter answers in the network's place."""
    from requests.adapters import HTTPAdapter
    from requests_cache import CachedSession  # type: ignore[import-not-found,unused-ignore]  # only the validator has it
    from urllib3 import HTTPResponse

    contexts = {json.loads(data)["@id"]: data for data in (Path(path).read_bytes() for path in paths)}

    class Shelf(HTTPAdapter):
        def send(self, request: Any, *_: Any, **__: Any) -> Any:
            headers = {"Content-Type": "application/ld+json"}
            raw = HTTPResponse(io.BytesIO(contexts[request.url]), headers, 200, preload_content=False)
            return self.build_response(request, raw)

    session = CachedSession(cache, backend="sqlite", expire_after=-1)
    session.mount("https://", Shelf())
    for address in contexts:
        session.get(address)
    session.close()


if __name__ == "__main__":
    seed(sys.argv[1], sys.argv[2:])
