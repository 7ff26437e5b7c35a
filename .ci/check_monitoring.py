"""Asks a Prometheus that scrapes a server under traffic what the dashboard would ask it.

Usage: check_monitoring.py URL_OF_THE_SERVER URL_OF_PROMETHEUS

Run by .ci/check-monitoring. Every query of the dashboard must have an answer with numbers in it, every
rule must be evaluated without an error, and every alert of the server must have its rule.
"""

import json
import math
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

SERVER, PROMETHEUS = sys.argv[1:]
DEADLINE_SECONDS = 25


def send(method: str, path: str, body: object = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(SERVER + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        return json.load(urllib.request.urlopen(request, timeout=10))
    except urllib.error.HTTPError as error:
        return error.code


def traffic(number: int) -> None:
    """A bit of everything that the dashboard shows."""
    entity = f"/v1/entities/product/{number % 10}/features"
    send("POST", entity, {"features": {"price": number + 0.5, "stock": number}})
    send("POST", entity, {"features": {"price": -1}})
    send("GET", entity + "?names=price,stock,never_written")
    send("POST", "/v1/features/read", {"entities": {"product": ["1", "nobody"]}, "features": ["price"]})


def ask(path: str, **query: str) -> dict:
    url = f"{PROMETHEUS}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    try:
        return json.load(urllib.request.urlopen(url, timeout=10))
    except urllib.error.HTTPError as error:
        return json.load(error)


def problem_with(expression: str) -> str | None:
    answer = ask("query", query=expression)
    if answer["status"] != "success":
        return answer["error"]
    values = [float(series["value"][1]) for series in answer["data"]["result"]]
    if not values:
        return "no answer"
    return None if any(math.isfinite(value) for value in values) else f"no numbers: {values}"


def queries() -> dict[str, str]:
    dashboard = json.loads(Path("k8s/monitoring/dashboard.json").read_text())
    found = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "5s").replace("$namespace", ".*")
            found[f"{panel['title']} {target['refId']}"] = expression
    return found


def main() -> None:
    send("PUT", "/v1/entity-types/product", {"features": {
        "price": {"type": "float64", "minimum": 0, "max_age": "1h"},
        "stock": {"type": "int64"}, "never_written": {"type": "int64"}}})  # fmt: skip
    began = time.monotonic()
    waiting = dict.fromkeys(queries(), "not asked yet")
    asked = len(waiting)
    number = 0
    while waiting and time.monotonic() - began < DEADLINE_SECONDS:
        # Until the next time that Prometheus has looked.
        until = time.monotonic() + 1
        while time.monotonic() < until:
            traffic(number)
            number += 1
        all_queries = queries()
        asked_again = {title: problem_with(all_queries[title]) for title in waiting}
        waiting = {title: problem for title, problem in asked_again.items() if problem}
    problems = [f"dashboard: {title}: {problem}" for title, problem in waiting.items()]

    groups = ask("rules")["data"]["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    problems += [f"rule {name}: {rule['lastError']}" for name, rule in rules.items() if rule.get("lastError")]
    alerts = {alert["alertname"] for alert in send("GET", "/v1/alerts")["alerts"]}
    problems += [f"the server's alert {name} has no rule" for name in sorted(alerts - set(rules))]
    if problems or not asked:
        sys.exit("\n".join(problems) or "the dashboard asks nothing")
    seconds = time.monotonic() - began
    print(f"monitoring: ok ({asked} queries of the dashboard answered and {len(rules)} rules evaluated "
          f"by Prometheus, {number} rounds of traffic, {seconds:.0f} s)")  # fmt: skip


if __name__ == "__main__":
    main()
