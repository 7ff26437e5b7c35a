"""Checks how the deployment files fit together: what a schema of one file cannot see.

Usage: check_deployment.py [directory of rendered kustomizations]

Run from the repository's root, by .ci/check-deployment. Prints every problem, exits 1 if there is one.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

import yaml

K8S = Path("k8s")
PORT = 8080
PROBES = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
# The server refuses to start with a setting that it does not know.
SETTINGS = {
    "REDIS_HOST",
    "REDIS_PORT",
    *(
        f"FEATURE_STORE_{key}"
        for key in (
            "LISTEN DATA_DIR STORE_URL REDIS_HOST REDIS_PORT DEFAULT_TTL EMBEDDING_TTL "
            "ENABLE_VERSIONING ENABLE_MONITORING MAX_VERSIONS SHUTDOWN_DELAY SHUTDOWN_GRACE WAIT_REPLICAS "
            "AUTH API_KEYS_FILE"
        ).split()
    ),
}
KUSTOMIZATION_KEYS = {"apiVersion", "kind", "resources", "components", "configMapGenerator", "patches",
                      "images", "labels"}  # fmt: skip
HEALTHCHECK = ["feature-store", "healthcheck"]

problems: list[str] = []


def expect(holds: object, problem: str) -> None:
    if not holds:
        problems.append(problem)


class Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML libraries silently keep the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(path: Path) -> list[dict]:
    try:
        return [document for document in yaml.load_all(path.read_text(), Loader) if document is not None]
    except yaml.YAMLError as error:
        problems.append(f"{path}: {error}")
        return []


def label(document: dict) -> str:
    return f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"


def pod_of(document: dict) -> dict:
    return document["spec"]["template"]


def labels_of(pod: dict) -> dict:
    return pod["metadata"].get("labels", {})


def matches(selector: dict, labels: dict) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def settings_are_known(where: str, names) -> None:
    for name in names:
        if name.startswith(("FEATURE_STORE_", "REDIS_")):
            expect(name in SETTINGS, f"{where}: the server has no setting {name}")


# --- kustomizations -------------------------------------------------------------------------------


def gather(directory: Path, seen: set[Path]) -> list[dict]:
    """The documents that a kustomization names, with the ConfigMaps it generates; patches left out."""
    files = [directory / name for name in ("kustomization.yaml", "kustomization.yml")]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        problems.append(f"{directory}: no kustomization.yaml")
        return []
    seen.add(path)
    documents = []
    for kustomization in load(path):
        unknown = set(kustomization) - KUSTOMIZATION_KEYS
        expect(not unknown, f"{path}: keys this check does not know: {sorted(unknown)}")
        for entry in kustomization.get("resources", []) + kustomization.get("components", []):
            target = (directory / entry).resolve().relative_to(Path.cwd())
            if target.is_dir():
                documents += gather(target, seen)
            elif target.is_file():
                seen.add(target)
                documents += load(target)
            else:
                problems.append(f"{path}: {entry} does not exist")
        for generator in kustomization.get("configMapGenerator", []):
            data = dict(literal.split("=", 1) for literal in generator.get("literals", []))
            for entry in generator.get("files", []):
                key, _, name = entry.rpartition("=")
                file = directory / name
                seen.add(file)
                expect(file.is_file(), f"{path}: {name} does not exist")
                data[key or file.name] = file.read_text() if file.is_file() else ""
            documents.append({"kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data})
        for patch in kustomization.get("patches", []):
            if "path" in patch:
                seen.add(directory / patch["path"])
                expect((directory / patch["path"]).is_file(), f"{path}: {patch['path']} does not exist")
    return documents


# --- manifests ------------------------------------------------------------------------------------


def check_stopping(where: str, pod: dict, settings: dict) -> None:
    """A pod answers on while the Service forgets it, and is not killed before it has finished."""
    delay, grace = (settings.get(f"FEATURE_STORE_SHUTDOWN_{name}", "") for name in ("DELAY", "GRACE"))
    if not all(re.fullmatch(r"[1-9]\d*s", span) for span in (delay, grace)):
        problems.append(f"{where}: shutdown delay {delay!r} and grace {grace!r} are not whole seconds")
        return
    patience = pod["spec"].get("terminationGracePeriodSeconds", 30)
    needed = int(delay[:-1]) + int(grace[:-1]) + 5
    expect(patience >= needed, f"{where}: terminationGracePeriodSeconds is {patience}, not {needed} or more")


def check_container(where: str, pod: dict, container: dict, documents: list[dict], claims: set[str]) -> None:
    security = container.get("securityContext", {})
    expect(security.get("readOnlyRootFilesystem") is True, f"{where}: root file system is writable")
    expect(security.get("allowPrivilegeEscalation") is False, f"{where}: may gain privileges")
    expect(security.get("capabilities", {}).get("drop") == ["ALL"], f"{where}: keeps capabilities")
    resources = container.get("resources", {})
    expect({"cpu", "memory"} <= set(resources.get("requests", {})), f"{where}: no CPU and memory requests")
    expect("memory" in resources.get("limits", {}), f"{where}: no memory limit")

    ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
    for probe, path in PROBES.items():
        expect(probe in container, f"{where}: no {probe}")
        request = container.get(probe, {}).get("httpGet")
        if request:
            expect(request["port"] in (*ports, *ports.values()), f"{where}: {probe}: no port {request['port']}")
        if container["name"] == "feature-store":
            asked = (request or {}).get("path")
            expect(asked == path, f"{where}: {probe} asks {asked}, not {path}")
    if container["name"] == "feature-store":
        expect(PORT in ports.values(), f"{where}: does not offer port {PORT}")

    maps = {d["metadata"]["name"]: d for d in documents if d["kind"] == "ConfigMap"}
    for source in container.get("envFrom", []):
        name = source.get("configMapRef", {}).get("name")
        expect(name is None or name in maps, f"{where}: no ConfigMap {name}")
        settings_are_known(f"{where}: ConfigMap {name}", maps.get(name, {}).get("data", {}))
    settings_are_known(where, [variable["name"] for variable in container.get("env", [])])
    if container["name"] == "feature-store":
        settings = {}
        for source in container.get("envFrom", []):
            settings |= maps.get(source.get("configMapRef", {}).get("name"), {}).get("data", {})
        check_stopping(where, pod, settings)
    volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])} | claims
    for mount in container.get("volumeMounts", []):
        expect(mount["name"] in volumes, f"{where}: no volume {mount['name']}")
    for volume in pod["spec"].get("volumes", []):
        name = volume.get("configMap", {}).get("name")
        expect(name is None or name in maps, f"{where}: no ConfigMap {name}")


def check_workload(where: str, document: dict, documents: list[dict]) -> None:
    pod, spec = pod_of(document), document["spec"]
    selector = spec["selector"]["matchLabels"]
    expect(matches(selector, labels_of(pod)), f"{where}: its selector does not match its pods")
    owners = [d for d in documents if "template" in d.get("spec", {}) and matches(selector, labels_of(pod_of(d)))]
    expect(len(owners) <= 1, f"{where}: its selector matches the pods of {[label(d) for d in owners]}")

    pod_spec = pod["spec"]
    expect(pod_spec.get("automountServiceAccountToken") is False, f"{where}: mounts the account's token")
    # Their names start as the server's settings do: FEATURE_STORE_PORT, REDIS_PORT.
    expect(pod_spec.get("enableServiceLinks") is False, f"{where}: enableServiceLinks is not false")
    security = pod_spec.get("securityContext", {})
    expect(security.get("runAsNonRoot") is True, f"{where}: may run as root")
    expect(security.get("runAsUser", 0) > 0, f"{where}: no numeric user")
    expect(security.get("seccompProfile") == {"type": "RuntimeDefault"}, f"{where}: no seccomp profile")
    accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
    account = pod_spec.get("serviceAccountName")
    expect(account in accounts, f"{where}: no ServiceAccount {account}")
    covering = [d for d in documents if d["kind"] == "NetworkPolicy"
                and matches(d["spec"]["podSelector"].get("matchLabels", {}), labels_of(pod))]  # fmt: skip
    expect(covering, f"{where}: no NetworkPolicy covers its pods")

    if document["kind"] == "StatefulSet":
        headless = [d for d in documents if d["kind"] == "Service" and d["metadata"]["name"] == spec["serviceName"]]
        expect(headless and headless[0]["spec"].get("clusterIP") == "None",
               f"{where}: no headless Service {spec['serviceName']}")  # fmt: skip
    claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
    for container in pod_spec["containers"]:
        check_container(f"{where}/{container['name']}", pod, container, documents, claims)


def check_reaching(where: str, document: dict, workloads: list[dict], everywhere: list[dict]) -> None:
    """Whatever points at pods by labels, ports or name: `workloads` of this set, `everywhere` of all."""
    kind, spec = document["kind"], document.get("spec", {})

    def selected(selector: dict, among: list[dict]) -> list[dict]:
        return [d for d in among if matches(selector, labels_of(pod_of(d)))]

    def ports(among: list[dict]) -> dict:
        return {port.get("name"): port["containerPort"]
                for d in among for c in pod_of(d)["spec"]["containers"] for port in c.get("ports", [])}  # fmt: skip

    if kind == "Service":
        found = selected(spec["selector"], workloads)
        expect(found, f"{where}: its selector matches no pods")
        for port in spec["ports"]:
            target = port.get("targetPort", port["port"])
            known = ports(found)
            expect(target in (*known, *known.values()), f"{where}: its pods have no port {target}")
    elif kind == "PodDisruptionBudget":
        expect(selected(spec["selector"]["matchLabels"], workloads), f"{where}: its selector matches no pods")
    elif kind == "HorizontalPodAutoscaler":
        target = spec["scaleTargetRef"]
        found = [d for d in workloads if (d["kind"], d["metadata"]["name"], d["apiVersion"])
                 == (target["kind"], target["name"], target["apiVersion"])]  # fmt: skip
        expect(found, f"{where}: there is no {target['apiVersion']} {target['kind']}/{target['name']}")
        expect(spec.get("minReplicas", 1) >= 2, f"{where}: fewer than two replicas")
        for scaled in found:
            expect("replicas" not in scaled["spec"], f"{label(scaled)}: replicas, which {label(document)} owns")
    elif kind == "PodMonitor":
        found = selected(spec["selector"]["matchLabels"], workloads)
        expect(found, f"{where}: its selector matches no pods")
        for endpoint in spec["podMetricsEndpoints"]:
            expect(endpoint["port"] in ports(found), f"{where}: its pods have no port {endpoint['port']}")
    elif kind == "NetworkPolicy":
        found = selected(spec["podSelector"].get("matchLabels", {}), workloads)
        expect(found, f"{where}: its selector matches no pods")
        for rule in spec.get("ingress", []):
            for port in rule.get("ports", []):
                known = ports(found)
                expect(port["port"] in (*known, *known.values()), f"{where}: its pods have no port {port['port']}")
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, []):
                for peer in rule.get(side, []):
                    if "podSelector" not in peer or "namespaceSelector" in peer:
                        continue
                    other = selected(peer["podSelector"].get("matchLabels", {}), everywhere)
                    expect(other, f"{where}: {direction}: no pods match {peer['podSelector']}")
                    if direction == "egress":
                        for port in rule.get("ports", []):
                            expect(port["port"] in ports(other).values(), f"{where}: egress: no port {port['port']}")


def check_set(where: str, documents: list[dict], everywhere: list[dict]) -> None:
    identities = [(d.get("apiVersion"), label(d)) for d in documents]
    for identity in identities:
        expect(identities.count(identity) == 1, f"{where}: {identity[1]} more than once")
    workloads = [d for d in documents if d["kind"] in ("Deployment", "StatefulSet")]
    expect(workloads, f"{where}: nothing runs")
    for document in documents:
        here = f"{where}: {label(document)}"
        expect("namespace" not in document["metadata"], f"{here}: names a namespace")
        if document["kind"] != "ConfigMap":
            missing = {f"app.kubernetes.io/{key}" for key in ("name", "component", "part-of")} - set(
                document["metadata"].get("labels", {})
            )
            expect(not missing, f"{here}: without the labels {sorted(missing)}")
        if document in workloads:
            check_workload(here, document, documents)
        else:
            check_reaching(here, document, workloads, everywhere)

    # Where the set brings its own Redis, the address in the settings is that Service.
    services = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Service"}
    if any(d["kind"] == "StatefulSet" for d in documents):
        for settings in (d.get("data", {}) for d in documents if d["kind"] == "ConfigMap"):
            if "REDIS_HOST" in settings:
                service = services.get(settings["REDIS_HOST"])
                expect(service, f"{where}: REDIS_HOST={settings['REDIS_HOST']} is no Service here")
                ports = [str(port["port"]) for port in service["spec"]["ports"]] if service else []
                expect(not service or settings.get("REDIS_PORT") in ports, f"{where}: REDIS_PORT is not in {ports}")


def check_kubernetes(rendered: Path | None, version: str) -> None:
    seen: set[Path] = set()
    directories = sorted({path.parent for path in K8S.rglob("kustomization.y*ml")})
    sets = {directory: gather(directory, seen) for directory in directories}
    for directory in directories:
        # A component is nothing by itself: it is checked together with what it is added to.
        if any(d["kind"] == "Component" for d in load(directory / "kustomization.yaml")):
            sets[directory] = sets[K8S / "base"] + sets[directory]
    for path in sorted(p for p in K8S.rglob("*") if p.is_file()):
        expect(path in seen, f"{path}: no kustomization lists it")
    if rendered:
        sets |= {path: load(path) for path in sorted(rendered.glob("*.yaml"))}

    everywhere = [d for documents in sets.values() for d in documents if "template" in d.get("spec", {})]
    for where, documents in sets.items():
        check_set(str(where), documents, everywhere)
    images = {c["image"] for d in everywhere for c in pod_of(d)["spec"]["containers"] if c["name"] == "feature-store"}
    expect(images == {f"feature-store:{version}"}, f"k8s: image {sorted(images)}, but Cargo.toml says {version}")


# --- docker-compose.yml ---------------------------------------------------------------------------


def check_compose(path: Path, version: str) -> None:
    for compose in load(path):
        services = compose["services"]
        for name, service in services.items():
            where = f"{path}: {name}"
            for other, condition in service.get("depends_on", {}).items():
                expect(other in services, f"{where}: depends on {other}, which is not there")
                if condition.get("condition") == "service_healthy":
                    expect("healthcheck" in services.get(other, {}), f"{where}: {other} has no healthcheck to wait for")
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                expect(source.startswith((".", "/")) or source in compose.get("volumes", {}),
                       f"{where}: volume {source} is not declared")  # fmt: skip
            expect("healthcheck" in service, f"{where}: no healthcheck")
        api = services.get("feature-store-api", {})
        environment = api.get("environment", {})
        settings_are_known(f"{path}: feature-store-api", environment)
        expect(environment.get("REDIS_HOST") in services, f"{path}: REDIS_HOST is no service here")
        expect(api.get("healthcheck", {}).get("test") == ["CMD", *HEALTHCHECK],
               f"{path}: feature-store-api: its health check is not {' '.join(HEALTHCHECK)}")  # fmt: skip
        expect(any(str(port).endswith(f":{PORT}") for port in api.get("ports", [])),
               f"{path}: feature-store-api: port {PORT} is not published")  # fmt: skip
        expect(api.get("image") == f"feature-store:{version}",
               f"{path}: image {api.get('image')}, but Cargo.toml says {version}")  # fmt: skip


# --- Dockerfile -----------------------------------------------------------------------------------


def check_dockerfile(path: Path, manifest: dict) -> None:
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.M).replace("\\\n", " ")
    instructions = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    last_stage = instructions[max(i for i, (word, _) in enumerate(instructions) if word == "FROM") :]
    last = dict(last_stage)
    expect(re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", last.get("USER", "")), f"{path}: USER is not a number other than 0")
    expect(last.get("EXPOSE") == str(PORT), f"{path}: EXPOSE is not {PORT}")
    for word, wanted in (("ENTRYPOINT", ["feature-store"]), ("CMD", ["serve"]), ("HEALTHCHECK", HEALTHCHECK)):
        command = last.get(word, "").rpartition("CMD ")[2]
        try:
            expect(json.loads(command) == wanted, f"{path}: {word} is not {json.dumps(wanted)}")
        except ValueError:
            problems.append(f"{path}: {word} is missing or not in exec form")
    settings_are_known(str(path), re.findall(r"(\w+)=", last.get("ENV", "")))
    expect(f":{PORT}" in last.get("ENV", ""), f"{path}: the server does not listen on {PORT}")

    rust = manifest["package"].get("rust-version", "")
    expect(re.search(rf"^FROM rust:{re.escape(rust)}\b", text, re.M), f"{path}: not built by Rust {rust}, as Cargo.toml says")
    # The dependency layer's stub build fails unless every target that Cargo.toml names has its file.
    stubs = next((rest for word, rest in instructions if word == "RUN" and "cargo build" in rest), "")
    targets = [("src/lib.rs", manifest.get("lib", {}))]
    for kind, directory in (("bin", "src/bin"), ("bench", "benches"), ("test", "tests"), ("example", "examples")):
        targets += [(f"{directory}/{target['name']}.rs", target) for target in manifest.get(kind, [])]
    for default, target in targets:
        file = target.get("path", default)
        expect(file in stubs, f"{path}: the dependency layer makes no stub of {file}, which Cargo.toml names")


def main() -> int:
    manifest = tomllib.loads(Path("Cargo.toml").read_text())
    version = manifest["package"]["version"]
    check_kubernetes(Path(sys.argv[1]) if len(sys.argv) > 1 else None, version)
    check_compose(Path("docker-compose.yml"), version)
    check_dockerfile(Path("Dockerfile"), manifest)
    for problem in dict.fromkeys(problems):
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
