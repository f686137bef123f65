"""The protocol over gRPC. Requests and replies are translated from and to the JSON form, which the checks share.

Needs the extra `oip-conformance[grpc]`: grpcio and protobuf.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from oip_conformance.check import Failed, NotTested
from oip_conformance.http_subject import WAITS_S
from oip_conformance.subject import Subject
from oip_conformance.tensors import FORMATS, flat, pack, unpack

# Message -> its fields, as number, name and type; `*` marks a repeated field. From open_inference_grpc.proto, without
# parameters: no check sends any, and a parser skips unknown fields. The names of nested messages are not on the wire.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 ready bool",
    "ModelReadyRequest": "1 name string, 2 version string",
    "ModelReadyResponse": "1 ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 name string, 2 version string, 3 extensions string*",
    "ModelMetadataRequest": "1 name string, 2 version string",
    "ModelMetadataResponse": "1 name string, 2 versions string*, 3 platform string, 4 inputs TensorMetadata*, "
    "5 outputs TensorMetadata*",
    "TensorMetadata": "1 name string, 2 datatype string, 3 shape int64*",
    "ModelInferRequest": "1 model_name string, 2 model_version string, 3 id string, 5 inputs Tensor*, "
    "6 outputs RequestedOutput*, 7 raw_input_contents bytes*",
    "ModelInferResponse": "1 model_name string, 2 model_version string, 3 id string, 5 outputs Tensor*, "
    "6 raw_output_contents bytes*",
    "Tensor": "1 name string, 2 datatype string, 3 shape int64*, 5 contents InferTensorContents",
    "RequestedOutput": "1 name string",
    "InferTensorContents": "1 bool_contents bool*, 2 int_contents int32*, 3 int64_contents int64*, "
    "4 uint_contents uint32*, 5 uint64_contents uint64*, 6 fp32_contents float*, 7 fp64_contents double*, "
    "8 bytes_contents bytes*",
}
# Datatype -> the field of InferTensorContents that holds its values. FP16 has none.
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_SERVICE = "inference.GRPCInferenceService"
_BUSY = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


def _classes() -> dict[str, Any]:
    """Return the class of each message, from a pool of its own: other libraries may register the same names."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package="inference", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind in (each.split() for each in fields.split(", ") if each):
            made = message.field.add(name=field, number=int(number))
            made.label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
            if kind.rstrip("*") in _MESSAGES:
                made.type, made.type_name = kinds.TYPE_MESSAGE, f".inference.{kind.rstrip('*')}"
            else:
                made.type = kinds.Type.Value(f"TYPE_{kind.rstrip('*').upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in _MESSAGES
    }


MESSAGES = _classes()


@dataclass(frozen=True, slots=True)
class GrpcAnswer:
    """One reply: its status code and message, and the reply itself if the code is OK."""

    code: str
    message: str
    reply: Any

    @property
    def ok(self) -> bool:
        return self.code == "OK"

    @property
    def told(self) -> str:
        return f"answered {self.code}: {self.message[:120]}".rstrip(": ")

    def object(self) -> dict[str, Any]:
        """Return the reply in the JSON form of the protocol, with the tensors' data.

        Raises:
            Failed: There is no reply, or a tensor's data are missing, given twice or not of its datatype.
        """
        if not self.ok:
            raise Failed(self.told)
        if self.reply.DESCRIPTOR.name == "ModelInferResponse":
            return _infer_reply(self.reply)
        return dict(_plain(self.reply))

    def error(self) -> str:
        """Return the code of a refusal.

        Raises:
            Failed: The code is OK.
        """
        if self.ok:
            raise Failed(self.told)
        return self.told


class GrpcSubject(Subject):
    """A model of a server over gRPC, on one channel that is kept open.

    Args:
        url: `grpc://host:port`, or `grpcs://` for TLS.
        headers: Sent as metadata with every call.
        timeout_s: For each reply.

    Raises:
        OSError: The server does not accept connections.
        ValueError: `url` is not such an address, or `model` is empty: the protocol has no list of models.
    """

    beyond_json = False  # what typed contents cannot carry is sent raw

    def __init__(
        self,
        url: str,
        model: str,
        given: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("grpc", "grpcs") or not parts.netloc:
            raise ValueError(f"{url!r} is not an address of gRPC.")
        if not model:
            raise ValueError("the protocol has no list of models over gRPC; say --model")
        super().__init__(model, given)
        self._metadata = [(name.lower(), value) for name, value in (headers or {}).items()]
        self._timeout_s = timeout_s
        options = [("grpc.max_receive_message_length", -1)]
        if parts.scheme == "grpcs":
            self._channel = grpc.secure_channel(parts.netloc, grpc.ssl_channel_credentials(), options)
        else:
            self._channel = grpc.insecure_channel(parts.netloc, options)
        try:
            grpc.channel_ready_future(self._channel).result(timeout_s)
        except grpc.FutureTimeoutError:
            raise OSError(f"no connection within {timeout_s:g} seconds") from None

    def call(self, name: str, message: Any = None) -> GrpcAnswer:
        """Make a call. A server that is busy is asked again.

        Raises:
            Failed: The server was lost, or did not reply in time.
        """
        for wait_s in (*WAITS_S, None):
            answer = self._once(name, MESSAGES[f"{name}Request"]() if message is None else message)
            if answer.code not in _BUSY or wait_s is None:
                break
            time.sleep(wait_s)
        if answer.code in (*_BUSY, "DEADLINE_EXCEEDED"):
            raise Failed(answer.told)
        return answer

    def server_metadata(self) -> GrpcAnswer:
        return self.call("ServerMetadata")

    def model_metadata(self, model: str = "", version: str = "") -> GrpcAnswer:
        return self.call("ModelMetadata", MESSAGES["ModelMetadataRequest"](name=model or self.model, version=version))

    def ready(self, model: str = "", version: str = "") -> bool:
        answer = self.call("ModelReady", MESSAGES["ModelReadyRequest"](name=model or self.model, version=version))
        return answer.ok and bool(answer.reply.ready)

    def infer(self, request: Any, *, model: str = "", version: str = "") -> GrpcAnswer:
        """Ask for an inference with typed contents, or with raw ones where an input has no typed form."""
        raw = any(each["datatype"] in ("FP16", "BF16") for each in request["inputs"])
        return self.call("ModelInfer", self.message(request, raw=raw, model=model, version=version))

    def message(self, request: Mapping[str, Any], *, raw: bool, model: str = "", version: str = "") -> Any:
        """Return a request as a `ModelInferRequest`.

        Raises:
            NotTested: An input has no raw form.
        """
        made = MESSAGES["ModelInferRequest"](
            model_name=model or self.model, model_version=version, id=request.get("id", "")
        )
        for each in request.get("outputs", ()):
            made.outputs.add(name=each["name"])
        for each in request["inputs"]:
            tensor = made.inputs.add(name=each["name"], datatype=each["datatype"], shape=each["shape"])
            data = flat(each["data"])
            if raw:
                made.raw_input_contents.append(_raw(each["datatype"], data))
            else:
                field = CONTENTS.get(each["datatype"]) or _contents_of(data)
                values = [str(value).encode() for value in data] if field == "bytes_contents" else data
                getattr(tensor.contents, field).extend(values)
        return made

    def _once(self, name: str, message: Any) -> GrpcAnswer:
        call = self._channel.unary_unary(
            f"/{_SERVICE}/{name}",
            request_serializer=lambda each: each.SerializeToString(),
            response_deserializer=MESSAGES[f"{name}Response"].FromString,
        )
        try:
            return GrpcAnswer("OK", "", call(message, metadata=self._metadata, timeout=self._timeout_s))
        except grpc.RpcError as error:
            return GrpcAnswer(error.code().name, error.details() or "", None)


def _raw(datatype: str, data: Sequence[Any]) -> bytes:
    if datatype == "BF16":
        raise NotTested("an input is BF16, which this suite cannot make")
    return pack(datatype if datatype in (*FORMATS, "BYTES") else "FP64", data)


def _contents_of(data: Sequence[Any]) -> str:
    """Return a field that can hold these values, for a datatype that has none."""
    return "bytes_contents" if data and isinstance(data[0], str) else "fp64_contents"


def _plain(value: Any) -> Any:
    """Return a field's value in JSON form."""
    if isinstance(value, (str, int)):
        return value
    if hasattr(value, "DESCRIPTOR"):
        return {field.name: _plain(getattr(value, field.name)) for field in value.DESCRIPTOR.fields}
    return [_plain(each) for each in value]


def _infer_reply(reply: Any) -> dict[str, Any]:
    raw = reply.raw_output_contents
    if raw and len(raw) != len(reply.outputs):
        raise Failed(f"{len(reply.outputs)} outputs and {len(raw)} raw_output_contents")
    outputs = [_output(each, raw[place] if raw else None) for place, each in enumerate(reply.outputs)]
    found = {"model_name": reply.model_name, "model_version": reply.model_version, "outputs": outputs}
    return {**found, "id": reply.id} if reply.id else found


def _output(tensor: Any, raw: bytes | None) -> dict[str, Any]:
    name, datatype = tensor.name, tensor.datatype
    said = {"name": name, "datatype": datatype, "shape": list(tensor.shape)}
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if raw is not None:
        if filled:
            raise Failed(f"output {name!r} has {filled[0]} beside raw_output_contents")
        if datatype not in (*FORMATS, "BYTES"):
            raise NotTested(f"output {name!r} is {datatype}, which this suite cannot read")
        try:
            return {**said, "data": unpack(datatype, raw)}
        except ValueError as error:
            raise Failed(f"output {name!r}: {error}") from None
    field = CONTENTS.get(datatype)
    if field is None or any(each != field for each in filled):
        raise Failed(f"output {name!r} is {datatype} and has {', '.join(filled) or 'no contents'}")
    values = list(getattr(tensor.contents, field))
    return {**said, "data": [each.decode(errors="replace") for each in values] if field == "bytes_contents" else values}
