import numpy as np
from test_report import records_of

from lead_core import pool_map


def test_the_map_has_every_record_with_an_embedding_and_is_the_same_each_time():
    records = records_of(60)
    embeddings = np.random.default_rng(2).normal(size=(60, 8)).astype(np.float32)
    embeddings[5] = np.nan
    first, second = (pool_map.map_plot(records, embeddings) for _ in range(2))
    assert first.png == second.png
    assert first.data["id"].tolist() == [name for name in records["id"] if name != "0005"]
    variances = first.data[["component_1", "component_2"]].var()
    assert variances["component_1"] >= variances["component_2"] > 0


def test_a_large_pool_is_mapped_in_part_with_all_selected_records(monkeypatch):
    monkeypatch.setattr(pool_map, "MOST_POINTS", 50)
    plot = pool_map.map_plot(records_of(200), np.random.default_rng(2).normal(size=(200, 3)))
    assert len(plot.data) == 50 + 40
    assert "90 of 200 records are drawn" in plot.caption


def test_a_map_needs_two_records_and_takes_embeddings_of_one_dimension():
    assert pool_map.map_plot(records_of(1), np.ones((1, 4))) is None
    plot = pool_map.map_plot(records_of(3), np.array([[0.0], [1.0], [2.0]]))
    assert (plot.data["component_2"] == 0).all()
