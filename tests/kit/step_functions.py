"""Step Functions as moto interprets them, with a Lambda function that answers in this process."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch

import boto3
import moto

from kit.waiting import wait_until
from mainspring.operations.pipelines.outside import answer
from mainspring.project import Project


class Lambda(ThreadingHTTPServer):
    """The part of Lambda's API that invokes a function: `operations.pipelines.outside.answer`."""

    daemon_threads = True

    def __init__(self, project: Project) -> None:
        super().__init__(("127.0.0.1", 0), _Invoked)
        self.project = project
        self.tokens: list[str] = []
        self.ended: dict[str, Any] = {}  # outcomes of the steps, as the last state has them
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Invoked(BaseHTTPRequestHandler):
    server: Lambda

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        failed = False
        self.server.ended = event.get("ended", {})
        try:
            outcome: Any = answer(self.server.project, event)
        except Exception as error:
            failed, outcome = True, {"errorMessage": str(error), "errorType": type(error).__name__}
        if "token" in event and not failed and "skipped" not in outcome:
            self.server.tokens.append(event["token"])
        elif "token" in event:
            boto3.client("stepfunctions").send_task_success(taskToken=event["token"], output=json.dumps(outcome))
        content = json.dumps(outcome).encode()
        self.send_response(200)
        if failed:
            self.send_header("X-Amz-Function-Error", "Unhandled")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def function(project: Project) -> Iterator[Lambda]:
    """Serve a project's Lambda function."""
    server = Lambda(project)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL_LAMBDA": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with patch.dict(os.environ, environment):
        yield server
    server.shutdown()
    server.server_close()


def executed(function: Lambda, name: str, definition: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run a state machine, approve what it asks for, and return the description of the execution."""
    settings = {"stepfunctions": {"execute_state_machine": True}, "core": {"passthrough": {"urls": [function.url]}}}
    with moto.mock_aws(config=settings):
        client = boto3.client("stepfunctions")
        machine = client.create_state_machine(
            name=name, definition=definition, roleArn="arn:aws:iam::123456789012:role/shop"
        )["stateMachineArn"]
        given = json.dumps({"parameters": parameters, "function": "shop"})
        run = client.start_execution(stateMachineArn=machine, input=given)["executionArn"]

        def ended() -> bool:
            while function.tokens:
                client.send_task_success(taskToken=function.tokens.pop(), output='{"result": null}')
            return bool(client.describe_execution(executionArn=run)["status"] != "RUNNING")

        wait_until(ended, "the execution to end")
        return dict(client.describe_execution(executionArn=run))
