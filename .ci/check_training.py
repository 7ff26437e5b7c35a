"""Training sets against pandas.merge_asof: every cell of every random case must be equal.

Usage: check_training.py URL CASES SEED
"""

import io
import json
import random
import sys
import urllib.parse
import urllib.request

import pandas as pd

url, cases, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
START = pd.Timestamp("2026-01-01", tz="UTC")
PARQUET = "application/vnd.apache.parquet"


def call(method, path, body, content_type="application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": content_type}, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        sys.exit(f"{method} {path}: {error.code} {error.read().decode()}")


def moment(rng):
    """One of few moments, so that events and rows of the spine often share one."""
    return START + pd.Timedelta(minutes=rng.randrange(0, 600, 5), milliseconds=rng.choice([0, 0, 1]))


def value(rng, kind):
    if rng.random() < 0.08:
        return None
    choices = {"float64": [0.5, 1.5, -2.25, 1e-7], "int64": [1, 2, 2**53 + 1], "string": ["", "a", "b,\"c\""]}
    return rng.choice(choices[kind])


def declare(rng, entity_type):
    """A schema, and the kind and max_age of each feature."""
    features = {}
    for name, kind in [("f", "float64"), ("n", "int64"), ("s", "string")]:
        features[name] = {"type": kind}
        if rng.random() < 0.5:
            features[name]["max_age"] = rng.choice(["5m", "30m", "2h"])
    schema = {"features": features, "ttl": "never", "max_versions": 1000}
    call("PUT", f"/v1/entity-types/{entity_type}", schema)
    return features


def write(rng, entity_type, features):
    """Events in no order of time, some of them written again or corrected. Gives them as they came."""
    events = []
    for _ in range(rng.randrange(5, 60)):
        names = rng.sample(sorted(features), rng.randrange(1, len(features) + 1))
        event = {
            "entity_id": str(rng.randrange(4)),
            "event_timestamp": moment(rng).isoformat(),
            "features": {name: value(rng, features[name]["type"]) for name in names},
        }
        events.append(event)
        if rng.random() < 0.1:
            events.append(rng.choice(events))
    for start in range(0, len(events), 20):
        body = {"entity_type": entity_type, "rows": events[start : start + 20]}
        result = json.loads(call("POST", "/v1/features/write", body))
        assert result["rejected"] == 0, result
    return events


def expected(spine, id_column, events, feature, max_age):
    """The column as merge_asof joins it."""
    rows = [
        (event["entity_id"], pd.Timestamp(event["event_timestamp"]), event["features"][feature])
        for event in events
        if feature in event["features"]
    ]
    column = [None] * len(spine)
    if not rows:
        return column
    history = pd.DataFrame(rows, columns=[id_column, "event_timestamp", "row"])
    # merge_asof is asked for the row, so that no type is changed on the way.
    values = [row[2] for row in rows]
    history["row"] = range(len(rows))
    # The same event again changes nothing; another value at the same time is a correction.
    same = pd.Series([f"{i} {t} {v!r}" for i, t, v in rows])
    history = history[~same.duplicated(keep="first")]
    history = history.drop_duplicates([id_column, "event_timestamp"], keep="last")
    history = history.sort_values("event_timestamp", kind="stable")
    left = spine[[id_column, "event_timestamp"]].reset_index().sort_values("event_timestamp", kind="stable")
    history["event_timestamp"] = history["event_timestamp"].astype(left["event_timestamp"].dtype)
    tolerance = None if max_age is None else pd.Timedelta(max_age.replace("m", "min"))
    joined = pd.merge_asof(left, history, on="event_timestamp", by=id_column, tolerance=tolerance)
    for index, row in zip(joined["index"], joined["row"]):
        column[index] = None if pd.isna(row) else values[int(row)]
    return column


def ask(rng, spine, id_columns, features, max_age):
    """The training set as a table, by way of a random format."""
    form = rng.choice(["json", "parquet", "csv"])
    if form == "json":
        columns = {name: [cell.isoformat() if name == "event_timestamp" else cell for cell in spine[name]] for name in spine}
        body = {"spine": {"columns": columns}, "entity_columns": id_columns, "features": features, "format": "parquet"}
        if max_age:
            body["max_age"] = max_age
        answer = call("POST", "/v1/features/training-set", body)
    else:
        query = {
            "entity_columns": ",".join(f"{of}:{column}" for of, column in id_columns.items()),
            "features": ",".join(features),
            "format": "parquet",
        }
        if max_age:
            query["max_age"] = max_age
        path = "/v1/features/training-set?" + urllib.parse.urlencode(query)
        if form == "parquet":
            answer = call("POST", path, spine.to_parquet(index=False), PARQUET)
        else:
            answer = call("POST", path, spine.to_csv(index=False).encode(), "text/csv")
    return pd.read_parquet(io.BytesIO(answer), dtype_backend="pyarrow")


def check(case):
    rng = random.Random(f"{seed} {case}")
    types = [f"left{case}", f"right{case}"][: rng.choice([1, 2, 2])]
    schemas = {of: declare(rng, of) for of in types}
    events = {of: write(rng, of, schemas[of]) for of in types}
    id_columns = {of: f"{of}_id" for of in types}
    rows = rng.randrange(1, 40)
    spine = pd.DataFrame({column: [f"{rng.randrange(5)}" for _ in range(rows)] for column in id_columns.values()})
    spine["event_timestamp"] = pd.Series([moment(rng) for _ in range(rows)]).astype("datetime64[us, UTC]")
    spine["label"] = [rng.randrange(2) for _ in range(rows)]
    features = [f"{of}.{name}" for of in types for name in schemas[of]]
    rng.shuffle(features)
    max_age = rng.choice([None, None, None, "10m"])
    answer = ask(rng, spine, id_columns, features, max_age)
    assert list(answer.columns) == list(spine.columns) + features, (case, list(answer.columns))
    for name in spine.columns:
        # CSV does not tell text from numbers.
        kept = answer[name].astype(str if name.endswith("_id") else spine[name].dtype)
        assert kept.tolist() == spine[name].tolist(), f"case {case}: {name} is not kept"
    for reference in features:
        of, name = reference.split(".")
        age = max_age or schemas[of][name].get("max_age")
        wanted = expected(spine, id_columns[of], events[of], name, age)
        got = [None if cell is None or cell is pd.NA else cell for cell in answer[reference].tolist()]
        assert got == wanted, f"case {case}, {reference}:\n{got}\n{wanted}"
    return rows * len(features)


cells = sum(check(case) for case in range(cases))
print(f"{cases} random histories and spines, {cells} cells: as merge_asof joins them")

address = f"{url}/v1/entity-types/left0/export?features=f,n,s&order=entity_id"
tables = [
    pd.read_parquet(f"{address}&format=parquet"),
    pd.read_csv(f"{address}&format=csv", dtype={"entity_id": str}),
    pd.read_json(f"{address}&format=json", dtype={"entity_id": str}),
]
assert all(list(table["entity_id"]) == list(tables[0]["entity_id"]) for table in tables)
assert len(tables[0]) > 0
print("exports open by address: read_parquet, read_csv, read_json")
