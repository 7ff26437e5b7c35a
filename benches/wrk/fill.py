"""Writes 1,000 products of 50 float64 features each. Usage: fill.py URL"""

import json
import random
import sys
import urllib.request

chance = random.Random(7)


def send(method: str, path: str, body: dict):
    data = json.dumps(body).encode()
    request = urllib.request.Request(sys.argv[1] + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


names = [f"feature_name_{index:02d}" for index in range(50)]
send("PUT", "/v1/entity-types/product", {"features": {name: {"type": "float64"} for name in names}})
for start in range(0, 1000, 100):
    rows = [{"entity_id": str(start + offset), "features": {name: chance.random() for name in names}}
            for offset in range(100)]  # fmt: skip
    answer = send("POST", "/v1/features/write", {"entity_type": "product", "rows": rows})
    if answer["rejected"]:
        sys.exit(f"rows were refused: {answer['results'][0]}")
