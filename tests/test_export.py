import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from conftest import make_tokenizer
from toy_artifacts import RECIPE, mixed_conversation, question, write_artifacts

from lead_core.errors import LeadError
from lead_core.export import SCORES, export_subset, read_subset
from lead_core.export_forms import Form
from lead_core.pool import open_pool
from lead_core.records import convert
from lead_core.storage import read_json


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished pipeline; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    return write_artifacts(folder, make_tokenizer(), conversation=mixed_conversation)


@pytest.fixture
def layout(trained, tmp_path):
    """The same, to be changed at will."""
    shutil.copytree(trained.pool.parent, tmp_path / "artifacts")
    return type(trained).below(tmp_path / "artifacts")


@pytest.fixture
def export(trained, tmp_path):
    def run(form=Form.MESSAGES, *, scores=True, layout=trained, recipe=RECIPE, name="out"):
        summary = export_subset(layout, tmp_path / name, form=form, scores=scores, recipe=recipe)
        return tmp_path / name, summary

    return run


def rows_of(folder, name="train.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


def messages_by_id(layout):
    pool = open_pool(layout.pool)
    return {name: pool.messages(row) for row, name in enumerate(pool.ids.tolist())}


def test_each_distinct_sample_is_one_row_with_its_first_round_and_last_utility(trained):
    subset = read_subset(trained)
    samples = pd.read_parquet(trained.train / "selection.parquet")
    assert len(samples) == 32
    assert len(subset.records) == len(subset.conversations) == 28
    assert subset.records["id"].tolist() == samples["id"].drop_duplicates().tolist()
    again = subset.records.iloc[0]  # picked in round 1, and again in the last
    both = samples[samples["id"] == again["id"]]
    assert both["round"].tolist() == [1, 8]
    assert (again["round"], again["uses"]) == (1, 2)
    assert again["utility"] == both["utility_after"].iloc[1] != both["utility_after"].iloc[0]


@pytest.mark.parametrize("form", [Form.MESSAGES, Form.ALPACA, Form.SHAREGPT])
def test_every_form_reads_back_as_the_pool_has_it(export, trained, form):
    folder, summary = export(form)
    rows, expected = rows_of(folder), messages_by_id(trained)
    assert len(rows) == 28
    assert {len(expected[row["id"]]) for row in rows} == {2, 4, 5}
    assert all(convert(row) == expected[row["id"]] for row in rows)
    assert all(set(SCORES) < set(row) for row in rows)
    assert summary.startswith(f"28 records ({form}) in {folder}, with ")
    assert not (folder / "refused.jsonl").exists()


def test_without_scores_only_the_forms_own_keys_are_left(export):
    folder, _ = export(Form.ALPACA, scores=False)
    assert set(rows_of(folder)[0]) == {"instruction", "input", "output", "system", "history"}
    assert "`utility`" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("form", [Form.DATASET, Form.MESSAGES, Form.ALPACA])
def test_the_folder_is_a_data_set_of_the_hub_library(export, trained, form, tmp_path):
    import datasets

    folder, _ = export(form)
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    expected = messages_by_id(trained)
    assert len(loaded) == 28
    assert {*SCORES, "id", "source"} < set(loaded.column_names)
    assert all(convert(row) == expected[row["id"]] for row in loaded)


def test_scores_keep_their_types_in_parquet(export, trained):
    folder, _ = export(Form.DATASET)
    frame = pd.read_parquet(folder / "train.parquet")
    assert list(frame.columns) == ["id", "source", "messages", *SCORES]
    assert frame["utility"].tolist() == read_subset(trained).records["utility"].tolist()
    assert {str(frame[name].dtype) for name in SCORES[1:]} == {"int32"}


def test_a_record_that_the_form_cannot_hold_is_kept_with_its_reason(tmp_path, export):
    def sometimes_odd(i):
        odd = [{"role": "assistant", "content": f"Hello {i}"}] if i % 2 else []
        return [*odd, *question(i)]

    layout = write_artifacts(tmp_path / "odd", make_tokenizer(), conversation=sometimes_odd)
    folder, summary = export(Form.SHAREGPT, layout=layout)
    written, refused = rows_of(folder), rows_of(folder, "refused.jsonl")
    assert len(written) + len(refused) == 28
    assert len(rows_of(folder, "trl.jsonl")) == len(written)
    assert refused[0]["reason"] == "bad_roles: turn 1 is the assistant's, expected the user's"
    assert refused[0]["messages"] == messages_by_id(layout)[refused[0]["id"]]
    assert f"{len(refused)} records do not fit: see {folder / 'refused.jsonl'}" in summary
    assert (
        f"{len(refused)} records that this form cannot hold" in (folder / "README.md").read_text()
    )
    assert read_json(folder / "lead_export.json", made_by="")["refused"] == len(refused)


def test_a_subset_that_fits_nowhere_is_an_error(tmp_path, export):
    def odd(i):
        return [{"role": "assistant", "content": f"Hello {i}"}, *question(i)]

    layout = write_artifacts(tmp_path / "odd", make_tokenizer(), conversation=odd)
    with pytest.raises(
        LeadError, match=r"no record of the subset can be written as messages: bad_"
    ):
        export(layout=layout)
    assert not (tmp_path / "out").exists()


def test_the_card_tells_what_it_is_where_it_comes_from_and_what_to_run(export, trained):
    folder, _ = export(Form.ALPACA)
    card = (folder / "README.md").read_text()
    manifest = read_json(trained.train / "manifest.json", made_by="")
    assert "28 of the 90 records of a pool, in the order in which `lead` first chose them" in card
    for name in ("pool", "scores", "clusters", "selection", "model", "adapter"):
        assert manifest[f"{name}_sha256"] in card
    assert "llamafactory-cli train llamafactory.yaml\ntrl sft --config trl.yaml\n```" in card
    assert "- No config for axolotl: its Alpaca type" in card
    assert "| offline | 180 | 9000 |" in card


def test_equal_work_gives_equal_bytes(export):
    first, _ = export(Form.DATASET, name="first")
    second, _ = export(Form.DATASET, name="second")
    assert [p.name for p in sorted(first.iterdir())] == [p.name for p in sorted(second.iterdir())]
    assert all(p.read_bytes() == (second / p.name).read_bytes() for p in first.iterdir())


def test_a_pool_that_grew_since_still_has_the_texts(layout, export, tmp_path):
    grown = write_artifacts(
        tmp_path / "grown", make_tokenizer(), records=120, conversation=mixed_conversation
    )
    before, _ = export(layout=layout, name="before")
    after, _ = export(layout=replace(layout, pool=grown.pool), name="after")
    assert rows_of(after) == rows_of(before)


def test_records_that_left_the_pool_are_missed_with_the_pool_they_were_in(layout, export, tmp_path):
    other = write_artifacts(tmp_path / "other", make_tokenizer(), conversation=question)
    with pytest.raises(
        LeadError,
        match=r"28 selected records are not in .*pool any more \(\w{16} first\); run `lead run pr",
    ):
        export(layout=replace(layout, pool=other.pool))


def test_a_changed_selection_or_pool_is_refused(layout, export):
    selection = layout.train / "selection.parquet"
    pd.read_parquet(selection).iloc[1:].to_parquet(selection, index=False)
    with pytest.raises(
        LeadError, match=r"selection\.parquet was made from another input .* train`"
    ):
        export(layout=layout)
    selection.unlink()
    with pytest.raises(LeadError, match=r"selection\.parquet is not there; run `dvc repro train`"):
        export(layout=layout)


def test_a_changed_pool_is_refused(layout, export):
    with (layout.pool / "pool.arrow").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(LeadError, match=r"pool\.arrow changed since it was prepared"):
        export(layout=layout)
