#!/usr/bin/env python3
"""First steps with a feature store, with nothing but the standard library.

Start a server (`cargo run --release`), then run this file. Its first argument says where the server
is, if not at http://localhost:8080.
"""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request


class FeatureStoreError(Exception):
    """A problem that the server answered with."""

    def __init__(self, problem: dict):
        super().__init__(f"{problem.get('code')}: {problem.get('detail')}")
        self.problem = problem


class FeatureStore:
    """A thin client: one method a request, plain dictionaries in and out."""

    def __init__(self, url: str = "http://localhost:8080", timeout: float = 10):
        self.url = url.rstrip("/")
        self.timeout = timeout

    def call(self, method: str, path: str, body: dict | None = None, **query: str) -> dict:
        url = self.url + path
        if query:
            url += "?" + urllib.parse.urlencode(query)
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            url, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise FeatureStoreError(json.load(error)) from None

    @staticmethod
    def _entity(entity_type: str, entity_id: str) -> str:
        return f"/v1/entities/{entity_type}/{urllib.parse.quote(entity_id, safe='')}"

    def write_features(self, entity_type: str, entity_id: str, features: dict, **more) -> dict:
        path = self._entity(entity_type, entity_id) + "/features"
        return self.call("POST", path, {"features": features, **more})

    def get_features(self, entity_type: str, entity_id: str, names: list[str]) -> dict:
        path = self._entity(entity_type, entity_id) + "/features"
        return self.call("GET", path, names=",".join(names))

    def get_features_batch(self, entities: dict[str, list[str]], features: list[str], **more) -> dict:
        return self.call("POST", "/v1/features/read", {"entities": entities, "features": features, **more})

    def get_feature_lineage(self, entity_type: str, entity_id: str, feature: str) -> dict:
        return self.call("GET", self._entity(entity_type, entity_id) + f"/features/{feature}/lineage")

    def health_check(self) -> dict:
        return self.call("GET", "/health")


def main() -> None:
    store = FeatureStore(sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8080")
    print("health:", store.health_check()["status"])

    written = store.write_features(
        "listener", "user_456", {"country": "FR", "minutes_per_day": 42.5, "is_member": True}, source="first_steps"
    )
    print("written as version", written["version"], written["outcomes"])

    read = store.get_features("listener", "user_456", ["country", "minutes_per_day"])
    print("read:", read["features"])

    answer = store.get_features_batch({"listener": ["user_456", "nobody"]}, ["country"])
    for row in answer["results"]:
        print("batch:", row["entity_id"], row["features"], row["statuses"])

    lineage = store.get_feature_lineage("listener", "user_456", "country")
    print("lineage:", lineage["current"]["provenance"]["source"])

    try:
        store.get_features("listener", "user_456", ["contry"])
    except FeatureStoreError as error:
        print("refused, as it should be:", error)


if __name__ == "__main__":
    main()
