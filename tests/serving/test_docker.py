"""The container files, as far as they can be checked without a Docker daemon."""

from __future__ import annotations

import json
import re
from pathlib import Path

import typer.main
import yaml

from internimage.checkpoints.catalog import find
from internimage.cli import app

FOLDER = Path(__file__).parents[2] / "docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def test_the_command_is_one_of_ours_and_serves_bundled_models() -> None:
    found = re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    name, *arguments = json.loads(found[1])
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]  # a group has commands
    values = command.make_context(name, arguments).params
    assert values["host"] == "0.0.0.0" and values["port"] == 8000
    entries = [find(model) for model in values["models"]]
    assert all(entry is not None and entry.source == "bundled" for entry in entries)


def test_every_image_runs_without_rights() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    users = {re.search(r" AS ([\w-]+)", stage)[1]: re.findall(r"^USER (\S+)", stage, re.MULTILINE) for stage in stages}  # type: ignore[index]  # all are named
    assert users["serve"][-1] == users["cuda"][-1] == "10001:10001" and users["cpu"] == []
    assert {"cpu", "cuda", "serve"} <= users.keys() and "HEALTHCHECK" in DOCKERFILE


def test_the_compose_file_starts_stages_that_exist_and_prometheus_finds_the_server() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert set(services) == {"cpu", "cuda", "prometheus"}
    for name in ("cpu", "cuda"):
        build = services[name]["build"]
        assert re.search(rf"^FROM \S+ AS {build['target']}$", DOCKERFILE, re.MULTILINE)
        assert (FOLDER / build["context"] / build["dockerfile"]).samefile(FOLDER / "Dockerfile")
    watched = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"][0]
    [target] = watched["static_configs"][0]["targets"]
    assert target == f"{services['cpu']['networks']['default']['aliases'][0]}:8000"
