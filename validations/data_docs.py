"""Great Expectations' own pages of a verdict, its Data Docs: a page a rule, for those who are used to them.

They fetch style, icons and scripts from other machines when they are looked at; without a network they are bare, and the marks
of passed and failed cannot be seen. The verdict page (`validations.page`) needs nothing, and says more.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from editors.errors import ConfigError

LOADED_AT = "%Y%m%dT%H%M%S.%fZ"
SITE = "suture"


def write_data_docs(evidence: Mapping[str, Any], version: str, folder: Path) -> Path:
    """Build the pages of a gate's results in a new folder; returns their index.

    Args:
        evidence: Rule name -> Great Expectations' result, as `Judgement.evidence` holds it.
        version: What the run is called on the pages.
        folder: Where to; new or empty.

    Raises:
        ConfigError: the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: Data Docs are built into a new folder", f"give a new folder: {folder}-2")
    import great_expectations as gx
    from great_expectations.core.expectation_validation_result import expectationSuiteValidationResultSchema
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    for site in list(context.variables.data_docs_sites or {}):
        context.delete_data_docs_site(site)
    context.add_data_docs_site(SITE, {
        "class_name": "SiteBuilder", "site_name": SITE, "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.absolute())},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"}})
    for rule, result in evidence.items():
        key = ValidationResultIdentifier(ExpectationSuiteIdentifier(rule), RunIdentifier(version, _judged_at(result)),
                                         result["meta"]["active_batch_definition"]["data_asset_name"])
        # every table of the gate is called the same, and a page is found by the rule
        context.validation_results_store.set(key, expectationSuiteValidationResultSchema.load({**result, "suite_name": rule}))
    context.build_data_docs([SITE])
    return folder / "index.html"


def _judged_at(result: Mapping[str, Any]) -> datetime:
    return datetime.strptime(result["meta"]["batch_markers"]["ge_load_time"], LOADED_AT).replace(tzinfo=UTC)
