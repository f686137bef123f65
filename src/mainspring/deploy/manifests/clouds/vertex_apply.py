"""The program beside the files for Vertex AI that sends them, by Google's own SDK."""

from __future__ import annotations

from mainspring.deploy.manifests.clouds.vertex import VertexOptions
from mainspring.deploy.targets.model import Deployment

NAME = "apply.py"

# Another form than f-string or format: it has braces of its own.
_PROGRAM = '''\
"""Upload, make and deploy what lies beside this file: python apply.py [ENDPOINT ...]. Needs google-cloud-aiplatform.

What is there already is left as it is, so it can be run again after a failure.
"""

import sys
from pathlib import Path

from google.api_core.exceptions import AlreadyExists
from google.cloud import aiplatform_v1 as v1

PLACE = "projects/@PROJECT@/locations/@REGION@"
AT = {"api_endpoint": "@REGION@-aiplatform.googleapis.com"}
HERE = Path(__file__).parent


def clients():
    return v1.ModelServiceClient(client_options=AT), v1.EndpointServiceClient(client_options=AT)


def once(start, what):
    try:
        start().result()
        print("made", what)
    except AlreadyExists:
        print("is there", what)


def apply(name, models, endpoints):
    model, endpoint, deployed = (
        (HERE / name / f"{each}.json").read_text() for each in ("model", "endpoint", "deploy")
    )
    upload = v1.UploadModelRequest.from_json(model)
    upload.parent = PLACE
    once(lambda: models.upload_model(upload), f"model {upload.model_id}")
    make = v1.CreateEndpointRequest(parent=PLACE, endpoint=v1.Endpoint.from_json(endpoint), endpoint_id=name)
    once(lambda: endpoints.create_endpoint(make), f"endpoint {name}")
    deploy = v1.DeployModelRequest.from_json(deployed)
    deploy.endpoint = f"{PLACE}/endpoints/{name}"
    there = endpoints.get_endpoint(name=deploy.endpoint)
    if any(each.model.rpartition("/")[2] == upload.model_id for each in there.deployed_models):
        print("is deployed", upload.model_id)
    else:
        endpoints.deploy_model(deploy).result()
        print("deployed", upload.model_id)
        there = endpoints.get_endpoint(name=deploy.endpoint)
    for each in there.private_service_connect_config.psc_automation_configs:
        print("private address", each.ip_address or each.error_message)


def main(names):
    models, endpoints = clients()
    for name in names or sorted(each.parent.name for each in HERE.glob("*/deploy.json")):
        apply(name, models, endpoints)


if __name__ == "__main__":
    main(sys.argv[1:])
'''


def program(deployment: Deployment, options: VertexOptions) -> str:
    """Return the program. What is put into it has letters, digits and `-` alone."""
    return _PROGRAM.replace("@PROJECT@", options.project).replace("@REGION@", deployment.region)
