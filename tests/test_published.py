"""What chapter 15 sets beside our tables: every figure has a source, and finds its rows."""

import json
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parent.parent / "book"
PUBLISHED = json.loads((BOOK / "results/published.json").read_text(encoding="utf-8"))
ALL = PUBLISHED["figures"] + PUBLISHED["findings"]


def test_every_figure_has_a_source():
    keys = (BOOK / "references.bib").read_text(encoding="utf-8")
    for figure in PUBLISHED["figures"]:
        assert figure["source"]
        assert f"{{{figure['paper']}," in keys
    assert all(figure["source"] for figure in PUBLISHED["findings"])


@pytest.mark.parametrize("figure", [f for f in ALL if f["ours"]], ids=lambda f: f["method"])
def test_every_figure_finds_rows_of_ours(figure):
    ours = figure["ours"]
    table = json.loads((BOOK / f"results/{ours['table']}.json").read_text(encoding="utf-8"))
    found = {
        row["method"]
        for row in table["rows"]
        if row["method"] in ours["methods"]
        and ours["logit"] in (None, row["logit"])
        and ours["space"] in (None, row["space"])
        and ours["metric"] in row["metrics"]
    }
    assert found == set(ours["methods"])


def test_changes_go_the_better_way():
    """A figure that a paper reports with its base is an improvement."""
    for figure in PUBLISHED["figures"]:
        if figure["before"]:
            gain = figure["after"]["value"] - figure["before"]["value"]
            assert gain * (1 if figure["better"] == "higher" else -1) > 0
