"""The Kubernetes manifests: what kustomize makes of them, how hardened it is, and what scales it."""

from __future__ import annotations

import re

import pytest
from deploy_box import DEPLOY, documents, kustomized, run_tool

from service.jobs import LIVE_QUEUE
from service.metrics_catalogue import FAMILIES
from service.settings import Settings, load_settings
from service.settings_values import WEBHOOK_PATH

NOT_BUILT_IN = {"ScaledObject", "ServiceMonitor"}
OLDEST_KUBERNETES = re.search(
    r"Kubernetes ([0-9.]+) is the least", (DEPLOY / "README.md").read_text(encoding="utf-8")
)[1]
"""By README. Schemas also have what is behind a feature gate, as `preStop.sleep` was in 1.29."""
DEPLOYMENTS = {name: documents(f"kubernetes/base/{name}.yaml")[0] for name in ("web", "worker")}
PODS = {name: one["spec"]["template"]["spec"] for name, one in DEPLOYMENTS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("directory", ["base", "example"])
@pytest.mark.parametrize("version", ["oldest", "newest"])
def test_kubernetes_knows_every_field_of_what_kustomize_makes(directory, version, tmp_path) -> None:
    made, text = kustomized(directory)
    path = tmp_path / "all.yaml"
    path.write_text(text)
    oldest = ("--kubernetes-version", OLDEST_KUBERNETES) if version == "oldest" else ()
    result = run_tool("kubernetes-validate", *oldest, "--strict", path)
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert said.count("passed for resource") == len([one for one in made if one["kind"] not in NOT_BUILT_IN])


def test_the_example_s_secret_holds_what_the_settings_read_from_files() -> None:
    settings = documents("kubernetes/base/settings.yaml")[0]["data"]
    mounted = next(one for one in PODS["web"]["containers"][0]["volumeMounts"] if one["name"] == "secrets")
    paths = [path for name, path in settings.items() if name.endswith("_FILE") and name != "RULES_FILE"]
    secret = documents("kubernetes/example/secret.example.yaml")[0]["stringData"]
    assert sorted(paths) == sorted(f"{mounted['mountPath']}/{name}" for name in secret)
    assert "ADMIN_TOKEN_FILE" in settings


def test_nothing_starts_with_the_tokens_of_the_example() -> None:
    secret = documents("kubernetes/example/secret.example.yaml")[0]["stringData"]
    tokens = {name: secret[name.lower()] for name in ("ADMIN_TOKEN", "METRICS_TOKEN")}
    found = load_settings(tokens, needs=(), on_terminal=False)
    assert not isinstance(found, Settings)
    assert {problem.name for problem in found} == tokens.keys()


@pytest.mark.slow
def test_the_example_has_all_that_the_pods_mount() -> None:
    made, _ = kustomized("example")
    names = {(one["kind"], one["metadata"]["name"]) for one in made}
    for pod in PODS.values():
        for volume in pod["volumes"]:
            if "secret" in volume:
                assert ("Secret", volume["secret"]["secretName"]) in names
            if "configMap" in volume:
                # its name has no digest, so that a change reaches running pods
                assert ("ConfigMap", volume["configMap"]["name"]) in names
    secret = next(one for one in made if one["kind"] == "Secret")
    settings = documents("kubernetes/base/settings.yaml")[0]["data"]
    files = {
        path.rsplit("/", 1)[1]
        for name, path in settings.items()
        if name.endswith("_FILE") and name != "RULES_FILE"
    }
    assert secret["stringData"].keys() == files


@pytest.mark.slow
def test_the_number_of_workers_is_left_to_keda() -> None:
    made, _ = kustomized("example")
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in made}
    scaled = by_name["ScaledObject", "close-enrich-worker"]
    worker = by_name["Deployment", scaled["spec"]["scaleTargetRef"]["name"]]
    assert "replicas" not in worker["spec"]
    assert scaled["spec"]["minReplicaCount"] >= 1


def test_keda_asks_for_metrics_that_exist() -> None:
    scaled = documents("kubernetes/components/keda/scaled-object.yaml")[0]
    queries = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    asked = {name for query in queries for name in re.findall(r"close_enrich_\w+", query)}
    assert {"close_enrich_queue_jobs", "close_enrich_queue_oldest_seconds"} < asked
    assert asked <= {sample for family in FAMILIES for sample in family.samples}
    assert f'queue="{LIVE_QUEUE}"' in queries[1]


@pytest.mark.parametrize("name", PODS)
def test_pods_meet_the_restricted_security_standard(name) -> None:
    pod, container = PODS[name], PODS[name]["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == int(
        re.search(r"^USER (\d+)", _dockerfile(), re.MULTILINE)[1]
    )
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (
        {"cpu", "memory"}
        == container["resources"]["limits"].keys()
        == container["resources"]["requests"].keys()
    )


@pytest.mark.parametrize("name", PODS)
def test_every_selector_finds_its_pods(name) -> None:
    labels = DEPLOYMENTS[name]["spec"]["template"]["metadata"]["labels"]
    assert DEPLOYMENTS[name]["spec"]["selector"]["matchLabels"] == labels
    for one in documents(f"kubernetes/base/{name}.yaml")[1:]:
        selector = one["spec"]["selector"]
        assert selector.get("matchLabels", selector) == labels


def test_probes_ask_what_the_receiver_answers() -> None:
    container = PODS["web"]["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert WEBHOOK_PATH in (DEPLOY / "kubernetes/example/ingress.yaml").read_text()


def test_the_ingress_names_its_controller_and_lets_in_webhooks_alone() -> None:
    spec = documents("kubernetes/example/ingress.yaml")[0]["spec"]
    assert spec["ingressClassName"]
    (path,) = (path for rule in spec["rules"] for path in rule["http"]["paths"])
    assert (path["path"], path["pathType"]) == (WEBHOOK_PATH, "Exact")


def test_a_worker_is_not_restarted_because_redis_is_away() -> None:
    container = PODS["worker"]["containers"][0]
    assert container["livenessProbe"]["exec"]["command"] == [
        "close-enrich",
        "health",
        "worker",
        "--tolerate-redis",
    ]


def _dockerfile():
    return (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
