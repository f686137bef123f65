"""A process that runs for long works by what was applied last, not by what there was at its start."""

from __future__ import annotations

from kit.depot import Depot, opened
from kit.waiting import wait_until
from mainspring.processes.worker import duties


def test_a_view_and_a_gate_are_followed_when_they_are_applied(depot: Depot) -> None:
    project = opened(depot)
    project.follow_definitions()
    try:
        assert project.definitions.models["late-parcel"].gates
        features, model = depot.root / "parcels" / "features.py", depot.root / "parcels" / "model.py"
        features.write_text(
            features.read_text()
            + '\n\n@ms.feature_view(entity=hub, source=scans)\nclass HubDay:\n    scans_1d = ms.count(window="1d")\n'
        )
        model.write_text(model.read_text().replace('    gates=[ms.beats("auc", by=0.01)],\n', ""))
        assert set(project.definitions.views) == {"HubLoad"}, "it is not applied yet"
        depot.json("apply")
        wait_until(lambda: set(project.definitions.views) == {"HubLoad", "HubDay"}, "the definitions to follow")
        assert not project.definitions.models["late-parcel"].gates
    finally:
        project.close()


def test_an_endpoint_is_published_when_it_is_applied_and_no_worker_withdraws_it(depot: Depot) -> None:
    project = opened(depot)
    project.follow_definitions()
    try:
        publish = next(each for each in duties(project) if each.name == "publishing routes")
        publish.do()
        assert set(project.routes.current()) == {"late-parcel"}
        service = depot.root / "parcels" / "service.py"
        service.write_text(service.read_text() + '\nms.Endpoint("second", model="late-parcel@champion")\n')
        depot.json("apply")
        assert set(project.routes.current()) == {"late-parcel", "second"}
        publish.do()  # by the definitions of now, although it looked for newer ones less than a second ago
        assert set(project.routes.current()) == {"late-parcel", "second"}
        service.write_text("this is not Python\n")
        publish.do()
        assert set(project.routes.current()) == {"late-parcel", "second"}
    finally:
        project.close()


def test_a_module_that_the_project_names_since_is_followed(depot: Depot) -> None:
    project = opened(depot)
    project.follow_definitions()
    try:
        assert not project.definitions.pipelines
        step, pipeline = "@ms.step\ndef one():\n    return 1\n", "@ms.pipeline\ndef flow():\n    return one()\n"
        flow = f"import mainspring as ms\n\n\n{step}\n\n{pipeline}"
        (depot.root / "parcels" / "flow.py").write_text(flow)
        settings = depot.root / "mainspring.toml"
        settings.write_text(settings.read_text().replace("modules = [", 'modules = ["parcels.flow", '))
        depot.json("apply")
        wait_until(lambda: set(project.definitions.pipelines) == {"flow"}, "the pipeline to follow")
    finally:
        project.close()
