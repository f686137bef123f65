"""Files of the kinds `vertex` and `azureml`, read by the SDKs of the clouds: `-m kit.cloud_specifications KIND FOLDER`.

It is run where the SDK is installed (`kit.engines`), and prints a line for each file that the SDK takes as it is. Of
further folders it prints whether a file was refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def vertex(folder: Path) -> None:
    from google.cloud.aiplatform_v1 import types
    from google.protobuf import json_format

    kinds = {
        "model.json": types.UploadModelRequest,
        "endpoint.json": types.Endpoint,
        "deploy.json": types.DeployModelRequest,
        "train-*.json": types.CustomJob,
        "pipeline-*.json": types.PipelineJob,
    }
    for pattern, kind in kinds.items():
        for path in sorted(folder.rglob(pattern)):
            given = json.loads(path.read_text())
            message = json_format.ParseDict(given, kind.pb(kind()))  # an unknown field or value is an error
            again = json_format.MessageToDict(message)
            if missing := _missing(given, again):
                raise ValueError(f"{path}: {missing} is lost")
            print(f"{path.relative_to(folder)}: {kind.__name__}")


def applied(folder: Path) -> None:
    """Run the program three times against a server of Vertex AI's messages; one deployment is lost in between."""
    import contextlib
    import io
    import runpy

    import grpc
    from google.cloud.aiplatform_v1 import EndpointServiceClient, ModelServiceClient
    from google.cloud.aiplatform_v1.services.endpoint_service.transports import EndpointServiceGrpcTransport
    from google.cloud.aiplatform_v1.services.model_service.transports import ModelServiceGrpcTransport

    server = _Vertex()
    try:
        program = runpy.run_path(str(folder / "apply.py"))
        channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        clients = (
            ModelServiceClient(transport=ModelServiceGrpcTransport(channel=channel)),
            EndpointServiceClient(transport=EndpointServiceGrpcTransport(channel=channel)),
        )
        program["main"].__globals__["clients"] = lambda: clients
        for number in range(3):
            if number == 1:
                server.deployed.pop(min(server.deployed))
            told = io.StringIO()
            with contextlib.redirect_stdout(told):
                program["main"]([])
            print(json.dumps(told.getvalue().splitlines()))
        print(json.dumps(server.received))
    finally:
        server.close()


class _Vertex:
    """The part of Vertex AI's API that uploads, makes and deploys: what is there already is refused."""

    def __init__(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        import grpc
        from google.cloud.aiplatform_v1 import types
        from google.longrunning import operations_pb2

        self.received: list[str] = []
        self.deployed: dict[str, Any] = {}
        self._there = set[str]()
        self._private: dict[str, Any] = {}

        def done(context: Any, name: str, response: Any, parent: str) -> Any:
            if name in self._there:
                context.abort(grpc.StatusCode.ALREADY_EXISTS, name)
            self._there.add(name)
            operation = operations_pb2.Operation(name=f"{parent}/operations/1", done=True)
            operation.response.Pack(type(response).pb(response))
            return operation

        def upload(request: Any, context: Any) -> Any:
            found = done(context, f"models/{request.model_id}", types.UploadModelResponse(), request.parent)
            self.received.append("UploadModel")
            return found

        def create(request: Any, context: Any) -> Any:
            found = done(context, f"endpoints/{request.endpoint_id}", request.endpoint, request.parent)
            private = request.endpoint.private_service_connect_config
            for each in private.psc_automation_configs:
                each.ip_address = "10.65.0.2"
            self._private[f"{request.parent}/endpoints/{request.endpoint_id}"] = private
            self.received.append("CreateEndpoint")
            return found

        def deploy(request: Any, context: Any) -> Any:
            if request.deployed_model.model.rpartition("/")[2] not in {each.partition("/")[2] for each in self._there}:
                context.abort(grpc.StatusCode.NOT_FOUND, request.deployed_model.model)
            self.deployed[request.endpoint] = request.deployed_model
            self.received.append("DeployModel")
            operation = operations_pb2.Operation(name=f"{request.endpoint}/operations/1", done=True)
            response = types.DeployModelResponse(deployed_model=request.deployed_model)
            operation.response.Pack(type(response).pb(response))
            return operation

        def get(request: Any, _context: Any) -> Any:
            model = self.deployed.get(request.name)
            deployed = [model] if model is not None else []
            private = self._private.get(request.name)
            return types.Endpoint(name=request.name, deployed_models=deployed, private_service_connect_config=private)

        def method(function: Any, kind: Any, *, message: bool = False) -> Any:
            serialize = types.Endpoint.serialize if message else lambda answer: answer.SerializeToString()
            return grpc.unary_unary_rpc_method_handler(function, kind.deserialize, serialize)

        self._server = grpc.server(ThreadPoolExecutor(2))
        services = {
            "ModelService": {"UploadModel": method(upload, types.UploadModelRequest)},
            "EndpointService": {
                "CreateEndpoint": method(create, types.CreateEndpointRequest),
                "DeployModel": method(deploy, types.DeployModelRequest),
                "GetEndpoint": method(get, types.GetEndpointRequest, message=True),
            },
        }
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(f"google.cloud.aiplatform.v1.{name}", methods)
                for name, methods in services.items()
            ]
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        self._server.stop(None)


def azureml(folder: Path) -> None:
    from azure.ai.ml import load_job, load_online_deployment, load_online_endpoint
    from azure.mgmt.monitor.models import AutoscaleSettingResource

    def endpoint(path: Path) -> Any:
        return load_online_endpoint(str(path))._to_rest_online_endpoint("westeurope").as_dict()

    def deployment(path: Path) -> Any:
        found = load_online_deployment(str(path))
        found._validate()
        return {"type": type(found).__name__, **found._to_dict()}

    def job(path: Path) -> Any:
        found = load_job(str(path))
        result = found._validate()
        if not result.passed:
            raise ValueError(f"{path}: {result.error_messages}")
        return found._to_rest_object()

    def scaling(path: Path) -> Any:
        given = json.loads(path.read_text())
        found = AutoscaleSettingResource.from_dict(given)
        if missing := _missing(given, found.serialize()):
            raise ValueError(f"{path}: {missing} is lost")
        return found

    kinds: dict[str, Callable[[Path], Any]] = {
        "endpoint.yml": endpoint,
        "deployment.yml": deployment,
        "autoscale.json": scaling,
        "train-*.yml": job,
        "pipeline-*.yml": job,
    }
    for pattern, read in kinds.items():
        for path in sorted(folder.rglob(pattern)):
            read(path)
            print(f"{path.relative_to(folder)}: {read.__name__}")


def _missing(given: Any, found: Any, at: str = "") -> str:
    """Return the path of a value that is given and not found; empty if all are found. Numbers may be texts."""
    if isinstance(given, dict):
        lost = (_missing(value, (found or {}).get(name), f"{at}.{name}") for name, value in given.items())
        return next(filter(None, lost), "")
    if isinstance(given, list):
        if len(given) != len(found or []):
            return at
        return next(filter(None, (_missing(*pair, at) for pair in zip(given, found or [], strict=True))), "")
    return "" if given == found or str(given) == str(found) or not given else at


def main() -> None:
    kind, *folders = sys.argv[1:]
    read: dict[str, Callable[[Path], None]] = {"vertex": vertex, "azureml": azureml, "applied": applied}
    read[kind](Path(folders[0]))
    for each in folders[1:]:  # in which each SDK shall refuse something
        try:
            read[kind](Path(each))
        except Exception as error:
            print(f"refused {each}: {type(error).__name__}")
        else:
            print(f"taken {each}")


if __name__ == "__main__":
    main()
