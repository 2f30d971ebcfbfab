"""Great Expectations' Data Docs of a version, from the gate's results in the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from editors.errors import ConfigError
from flows.answers import find_version
from flows.house import open_house
from flows.settings import Settings
from tasks import channel as channels
from validations.data_docs import write_data_docs

RESULTS = "expectations.json"


def data_docs(settings: Settings, version: str, folder: Path) -> dict[str, Any]:
    """Build the pages of a version's verdict in a new folder.

    Raises:
        NotFound: there is no such version.
        ConfigError: nothing judged it, or the folder is not empty.
        IntegrityError: the results are gone or damaged.
    """
    with open_house(settings) as house:
        contents = channels.read_version(house.store, *find_version(house.store, version))
        if RESULTS not in contents.artefacts:
            raise ConfigError(f"version {contents.version} was not judged: it keeps no results of Great Expectations",
                              f"suture show {contents.version}")
        kept = channels.read_document(house.store, contents.artefacts[RESULTS], f"the results of {contents.version}")
    evidence = json.loads(kept)
    index = write_data_docs(evidence, contents.version, folder)
    return {"version": contents.version, "rules": len(evidence), "index": str(index.absolute()),
            "next": [f"suture show {contents.version}"]}
