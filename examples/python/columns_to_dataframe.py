#!/usr/bin/env python3
"""A batch read as a pandas DataFrame: `pip install pandas`, start a server, run this file.

Its first argument says where the server is, if not at http://localhost:8080.
"""

import sys

import pandas as pd

from first_steps import FeatureStore


def read_frame(store: FeatureStore, entity_type: str, entity_ids: list[str], features: list[str]) -> pd.DataFrame:
    """One row an entity, one column a feature, in the order asked for."""
    answer = store.get_features_batch({entity_type: entity_ids}, features, layout="columns")
    columns = answer[entity_type]
    index = pd.Index(columns["entity_ids"], name="entity_id")
    return pd.DataFrame(columns["features"], index=index)


def main() -> None:
    store = FeatureStore(sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8080")
    rows = [
        {"entity_id": str(number), "features": {"title": f"Book {number}", "price": 9.5 + number}}
        for number in range(1, 6)
    ]
    written = store.call("POST", "/v1/features/write", {"entity_type": "book", "rows": rows})
    print(written["written"], "rows written")

    frame = read_frame(store, "book", ["3", "1", "nothing-there"], ["title", "price"])
    print(frame)
    print(frame.dtypes)


if __name__ == "__main__":
    main()
