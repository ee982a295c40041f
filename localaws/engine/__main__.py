"""Runs one program in a process of its own: `python -m localaws.engine`, request on standard input, answer in a file.

A process a deployment: Pulumi's runtime keeps settings, outputs and failed RPCs in module state.
"""

import asyncio
import json
import os
import runpy
import sys
import traceback
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from pulumi.runtime import mocks, settings
from pulumi.runtime import stack as pulumi_stack
from pulumi.runtime.config import set_all_config
from pulumi.runtime.proto import resource_pb2

from localaws.engine import monitor, resources
from localaws.engine.invokes import Invokes
from localaws.server import CLIENT_CONFIG, ROOT_ACCESS_KEY, ROOT_SECRET_KEY, isolated_session


def main() -> None:
    """Read the request, run the program, write the answer; failures go into the answer, never only to the log."""
    request = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        answer = run(request)
    except BaseException as error:  # noqa: BLE001  # whatever the program raises is the answer
        answer = {"error": _message(error), "trace": traceback.format_exc()}
    Path(request["answer"]).write_text(json.dumps(answer))
    sys.stdout.flush()
    os._exit(1 if "error" in answer else 0)  # threads of a failed deployment may wait for ever


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run the program of `request` and return {"outputs": …, "resources": […]}."""
    account = resources.Account(
        account_id=request["account_id"],
        region=request["region"],
        client=_clients(request["endpoint_url"]) if request["endpoint_url"] else None,
    )
    describe = _describe_table(account.client) if account.client else _planned_table(account)
    engine = monitor.Monitor(account, Invokes(account.account_id, account.region, describe))
    # Pulumi's mocks carry no type information.
    deployment_info: Any = engine.GetDeploymentInfo
    runtime_settings: Any = mocks.MockSettings
    features = set(deployment_info(None).supportedFeatures)
    settings.configure(
        runtime_settings(
            monitor=engine,
            monitor_features=features,
            engine=mocks.MockEngine(None),
            project=request["project"],
            stack=request["stack"],
            dry_run=False,
            organization="organization",
            root_directory=request["project_dir"],
            callbacks=None,
        )
    )
    set_all_config(dict(request["config"]))
    os.chdir(request["project_dir"])
    sys.path.insert(0, request["project_dir"])
    sys.argv = ["__main__.py"]

    def program() -> None:
        runpy.run_path(str(Path(request["project_dir"], "__main__.py")), run_name="__main__")

    asyncio.run(pulumi_stack.run_in_stack(program))
    return {
        "outputs": resources.json_outputs(engine.stack_outputs),
        "resources": [monitor.as_json(registration) for registration in engine.registrations],
    }


def _clients(endpoint_url: str) -> Any:
    session = isolated_session(ROOT_ACCESS_KEY, ROOT_SECRET_KEY)

    @lru_cache
    def client(service: str) -> Any:
        return session.client(
            service,  # type: ignore[call-overload]  # one function for every service
            endpoint_url=endpoint_url,
            config=CLIENT_CONFIG,
        )

    return client


def _describe_table(client: Any) -> Any:
    def describe(name: str) -> Mapping[str, Any]:
        dynamodb = client("dynamodb")
        try:
            table = dynamodb.describe_table(TableName=name)["Table"]
            backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
        except ClientError as error:
            raise LookupError(f"reading DynamoDB Table ({name}): {error}") from error
        recovery = backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]
        return {**table, "PitrEnabled": recovery == "ENABLED"}

    return describe


def _planned_table(account: resources.Account) -> Any:
    def describe(name: str) -> Mapping[str, Any]:
        return {
            "TableArn": account.arn("dynamodb", f"table/{name}"),
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            "AttributeDefinitions": [
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
            "PitrEnabled": True,
        }

    return describe


def _message(error: BaseException) -> str:
    """The program's own words: the innermost cause (Pulumi chains an RPC's error to itself)."""
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    return f"{type(error).__name__}: {error}"


# The generated protocol module must be loaded before threads import it together.
assert resource_pb2  # noqa: S101
if __name__ == "__main__":
    main()
