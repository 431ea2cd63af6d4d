"""The recipes of docs/deploy have the form that their programs demand, and agree with the rest of the repository."""

import os
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
BY_KIND = {manifest["kind"]: manifest for manifest in MANIFESTS}
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def options(arguments):
    return {argument.split("=")[0] for argument in arguments if argument.startswith("--")}


def chat_help():
    return subprocess.run([os.environ["CHAT_BIN"], "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_each_manifest_has_the_form_of_its_kind(manifest):
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_parts_of_kubernetes_name_each_other():
    labels = BY_KIND["Deployment"]["spec"]["template"]["metadata"]["labels"]
    [container] = BY_KIND["Deployment"]["spec"]["template"]["spec"]["containers"]
    for kind in ["Service", "PodDisruptionBudget", "Deployment"]:
        selector = BY_KIND[kind]["spec"]["selector"]
        assert selector.get("matchLabels", selector) == labels, kind
    ports = {port["name"] for port in container["ports"]}
    for probe in ["livenessProbe", "readinessProbe"]:
        assert container[probe]["httpGet"]["port"] in ports
    [service_port] = BY_KIND["Service"]["spec"]["ports"]
    assert service_port["targetPort"] in ports
    [rule] = BY_KIND["Ingress"]["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": BY_KIND["Service"]["metadata"]["name"], "port": {"name": service_port["name"]}}
    assert f"--allow-host={rule['host']}" in container["args"]


def test_a_pod_has_the_time_to_end():
    pod = BY_KIND["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    # The default of McpServer::shutdown_timeout, three steps of it.
    [step] = re.findall(r"shutdown_timeout: Duration::from_secs\((\d+)\)", (ROOT / "src/http/settings.rs").read_text())
    needed = 3 * int(step)
    assert pod["terminationGracePeriodSeconds"] > sleep + needed
    assert int(COMPOSE["x-server"]["stop_grace_period"].removesuffix("s")) > needed


def test_the_chat_has_each_option_that_the_recipes_give_it():
    said = chat_help()
    known = options(said.split())
    [container] = BY_KIND["Deployment"]["spec"]["template"]["spec"]["containers"]
    image = re.findall(r'CMD \[(.*)\]', (DEPLOY / "Dockerfile").read_text())[0]
    for arguments in [container["args"], COMPOSE["x-server"]["command"], yaml.safe_load(f"[{image}]")]:
        assert options(arguments) and options(arguments) <= known
    assert "REDIS_URL" in said
    assert {"name": "REDIS_URL"}.items() <= container["env"][0].items()


def test_the_services_of_compose_need_nothing_that_is_missing():
    services, volumes = COMPOSE["services"], COMPOSE["volumes"]
    known = {
        "build", "command", "depends_on", "entrypoint", "environment", "healthcheck", "image", "ports", "profiles",
        "restart", "stop_grace_period", "volumes",
    }
    for name, service in services.items():
        assert set(service) <= known, name
        assert set(service.get("depends_on", [])) <= set(services), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in volumes or (DEPLOY / source).exists(), volume
        if isinstance(service.get("depends_on"), dict):
            assert all("healthcheck" in services[needed] for needed in service["depends_on"]), name
    build = COMPOSE["x-server"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).exists()
    built = (DEPLOY / "Dockerfile").read_text()
    assert services["worker"]["entrypoint"] == ["worker"] and "examples/worker" in built


def test_nginx_of_compose_is_that_of_the_proxies_with_other_names():
    def lines(text):
        named = r"(pid|error_log|listen|server \S+:\d+|\w+_temp_path|client_body_temp_path) "
        kept = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
        return [line for line in kept if not re.match(named, line)]

    assert lines((DEPLOY / "nginx.conf").read_text()) == lines((ROOT / "docs/proxies/nginx.conf").read_text())
    servers = re.findall(r"server (\S+):8080", (DEPLOY / "nginx.conf").read_text())
    assert set(servers) < set(COMPOSE["services"]) and len(servers) == 2
