"""What a Task may call, each call first allowed or refused by the state machine's role.

Only the integrations listed here exist: a definition that names another is refused when it is created.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from localaws.emulator import iam, patching
from localaws.emulator.asl_errors import StateError
from localaws.emulator.observability import tables_named

LAMBDA_INVOKE = "arn:aws:states:::lambda:invoke"
START_EXECUTION = "arn:aws:states:::states:startExecution"
SNS_PUBLISH = "arn:aws:states:::sns:publish"
SDK_DYNAMODB = "arn:aws:states:::aws-sdk:dynamodb:"

# What RestoreTableToPointInTime needs on the new table besides itself: DynamoDB writes it in the caller's name.
RESTORE_TARGET_ACTIONS = ("BatchWriteItem", "DeleteItem", "GetItem", "PutItem", "Query", "Scan", "UpdateItem")

CHILD_POLL_SECONDS = 0.02


class Caller(Protocol):
    """The running execution on whose behalf a task calls."""

    role_arn: str
    region: str
    account_id: str
    session: str

    def check(self) -> None:
        """Raise StoppedError when the execution was ended from outside."""

    def start_child(self, request: dict[str, Any]) -> tuple[dict[str, Any], Callable[[float], bool]]:
        """Start an execution; returns its record and a wait (seconds → has it ended)."""


def is_supported(resource: str) -> bool:
    """Whether a Task's `Resource` is one that the embedded AWS carries out under the role's permissions."""
    if resource in (LAMBDA_INVOKE, SNS_PUBLISH, START_EXECUTION, f"{START_EXECUTION}.sync:2"):
        return True
    return resource.startswith(SDK_DYNAMODB) or ":function:" in resource


def require_services() -> None:
    """Check the entries into ministack's services that tasks use."""
    from ministack.services import lambda_svc, sns, stepfunctions

    patching.require(lambda_svc, "_get_func_record_for_ref", "(function_ref)")
    patching.require(lambda_svc, "_execution_record_for_config", "(func, config)")
    patching.require(lambda_svc, "_execute_function_with_config_scope", "(func, event)")
    patching.require(sns, "_publish", "(params)")
    patching.require(stepfunctions, "_dispatch_aws_sdk_json", "(service_info, service_name, action, input_data)")
    patching.require_names(stepfunctions, "_AWS_SDK_SERVICE_MAP", "_ExecutionError", "_service_model")


def call(resource: str, arguments: Any, caller: Caller) -> Any:
    """Carry out one task.

    Raises:
        StateError: the service refused or failed, or the role may not.
        StoppedError: the execution was ended while it waited.
    """
    if not isinstance(arguments, Mapping) and ":function:" not in resource:
        raise StateError("States.Runtime", f"The Arguments of {resource} must be an object.")
    if resource == LAMBDA_INVOKE:
        payload = _invoke(str(arguments.get("FunctionName", "")), arguments.get("Payload", {}), caller)
        return {"ExecutedVersion": "$LATEST", "Payload": payload, "StatusCode": 200}
    if resource == SNS_PUBLISH:
        return _publish(dict(arguments), caller)
    if resource.startswith(START_EXECUTION):
        return _start_execution(dict(arguments), caller, wait=resource.endswith(".sync:2"))
    if resource.startswith(SDK_DYNAMODB):
        return _dynamodb(resource.removeprefix(SDK_DYNAMODB), dict(arguments), caller)
    return _invoke(resource, arguments, caller)


def allow(caller: Caller, action: str, resource: str, denied_error: str, service: str) -> None:
    """Let a call pass if the role may make it.

    Raises:
        StateError: `denied_error`, with a cause that names the principal, action and resource, as the SDK words it.
    """
    try:
        iam.authorize(caller.role_arn, caller.session, action, resource, caller.region)
    except iam.AccessDeniedError as refusal:
        cause = f"{refusal} (Service: {service}, Status Code: 403, Error Code: AccessDeniedException)"
        raise StateError(denied_error, cause) from refusal


def _invoke(function: str, event: Any, caller: Caller) -> Any:
    from ministack.services import lambda_svc

    name = function.partition(":function:")[2] or function
    arn = f"arn:aws:lambda:{caller.region}:{caller.account_id}:function:{name}"
    allow(caller, "lambda:InvokeFunction", arn, "Lambda.AWSLambdaException", "AWSLambda")
    record, config, found_name = lambda_svc._get_func_record_for_ref(arn)
    if not record or not config:
        raise StateError("Lambda.ResourceNotFoundException", f"Function not found: {found_name}")
    prepared = lambda_svc._execution_record_for_config(record, config)
    result = lambda_svc._execute_function_with_config_scope(prepared, event)
    body = result.get("body")
    if result.get("throttle"):
        cause = f"{body.get('message')} (Service: AWSLambda; Status Code: 429; Error Code: TooManyRequestsException)"
        raise StateError("Lambda.TooManyRequestsException", cause)
    if result.get("error"):
        if isinstance(body, dict):
            raise StateError(body.get("errorType", "Lambda.Unknown"), json.dumps(body))
        raise StateError("Lambda.Unknown", str(body))
    if isinstance(body, str | bytes):
        try:
            return json.loads(body)
        except ValueError:
            return body
    return body


def _publish(arguments: dict[str, Any], caller: Caller) -> Any:
    from ministack.services import sns

    topic = str(arguments.get("TopicArn") or "")
    allow(caller, "sns:Publish", topic, "SNS.AuthorizationErrorException", "AmazonSNS")
    message = arguments.get("Message")
    if isinstance(message, dict | list):
        arguments["Message"] = json.dumps(message)
    status, _, body = sns._publish(arguments)
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
    if status >= 400:
        raise StateError(f"SNS.{_between(text, '<Code>', '</Code>') or 'InvalidParameter'}Exception", text)
    return {"MessageId": _between(text, "<MessageId>", "</MessageId>")}


def _between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def _start_execution(arguments: dict[str, Any], caller: Caller, *, wait: bool) -> Any:
    machine = str(arguments.get("StateMachineArn") or "")
    name = machine.rpartition(":")[2]
    denied, service = "StepFunctions.AWSStepFunctionsException", "AWSStepFunctions"
    allow(caller, "states:StartExecution", machine, denied, service)
    if wait:
        executions = f"arn:aws:states:{caller.region}:{caller.account_id}:execution:{name}:*"
        rule = (
            f"arn:aws:events:{caller.region}:{caller.account_id}:"
            "rule/StepFunctionsGetEventsForStepFunctionsExecutionRule"
        )
        for action in ("states:DescribeExecution", "states:StopExecution"):
            allow(caller, action, executions, denied, service)
        for action in ("events:PutTargets", "events:PutRule", "events:DescribeRule"):
            allow(caller, action, rule, denied, service)
    request = {"stateMachineArn": machine, "input": json.dumps(arguments.get("Input", {}))}
    if isinstance(arguments.get("Input"), str):
        request["input"] = arguments["Input"]
    if arguments.get("Name"):
        request["name"] = arguments["Name"]
    execution, ended = caller.start_child(request)
    if not wait:
        return {"ExecutionArn": execution["executionArn"], "StartDate": _milliseconds(execution["startDate"])}
    while not ended(CHILD_POLL_SECONDS):
        caller.check()
    described = described_child(execution)
    if execution["status"] == "SUCCEEDED":
        return {**described, "Output": json.loads(execution["output"])}
    raise StateError("States.TaskFailed", json.dumps(described))


def described_child(execution: Mapping[str, Any]) -> dict[str, Any]:
    """A child execution as the parent's task reports it."""
    described = {
        "ExecutionArn": execution["executionArn"],
        "Input": json.loads(execution["input"]),
        "InputDetails": {"Included": True},
        "Name": execution["name"],
        "RedriveCount": 0,
        "StartDate": _milliseconds(execution["startDate"]),
        "StateMachineArn": execution["stateMachineArn"],
        "Status": execution["status"],
        "StopDate": _milliseconds(execution["stopDate"]),
    }
    for member, key in (("Error", "error"), ("Cause", "cause"), ("Output", "output")):
        if execution.get(key) is not None:
            described[member] = execution[key]
    return described


def _milliseconds(moment: str | None) -> int | None:
    return int(datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp() * 1000) if moment else None


def _dynamodb(action: str, arguments: dict[str, Any], caller: Caller) -> Any:
    from ministack.core import iam_evaluator
    from ministack.services import stepfunctions

    operation = action[0].upper() + action[1:]
    for needed, resource in dynamodb_permissions(operation, arguments, caller.region, caller.account_id):
        allow(caller, f"dynamodb:{needed}", resource, "DynamoDb.DynamoDbException", "DynamoDb")
    principal = iam.session_arn(caller.role_arn, caller.session)
    token = iam_evaluator._request_caller_arn.set(principal)  # the access log asks who calls
    try:
        return stepfunctions._dispatch_aws_sdk_json(
            stepfunctions._AWS_SDK_SERVICE_MAP["dynamodb"], "dynamodb", action, arguments
        )
    except stepfunctions._ExecutionError as error:
        raise StateError(_sdk_error(error.error), f"{error.cause} (Service: DynamoDb, Status Code: 400)") from error
    finally:
        iam_evaluator._request_caller_arn.reset(token)


def dynamodb_permissions(
    operation: str, arguments: Mapping[str, Any], region: str, account_id: str
) -> list[tuple[str, str]]:
    """The (action, resource) pairs that DynamoDB asks IAM about for one call."""

    def table_arn(name: str) -> str:
        return f"arn:aws:dynamodb:{region}:{account_id}:table/{name}"

    if arguments.get("BackupArn"):
        needed = [(operation, str(arguments["BackupArn"]))]
    else:
        needed = [(operation, table_arn(name)) for name in sorted(tables_named(dict(arguments)))]
    if operation in ("RestoreTableToPointInTime", "RestoreTableFromBackup"):
        target = table_arn(str(arguments.get("TargetTableName", "")))
        if operation == "RestoreTableFromBackup":
            needed.append((operation, target))
        needed.extend((action, target) for action in RESTORE_TARGET_ACTIONS)
    return needed or [(operation, "*")]


def _sdk_error(error: str) -> str:
    """An error the service's model does not name surfaces as the service's general one."""
    from ministack.services import stepfunctions

    code = error.removeprefix("DynamoDb.")
    if error.startswith("States.") or code in {shape.name for shape in _model(stepfunctions).error_shapes}:
        return error
    return "DynamoDb.DynamoDbException"


def _model(stepfunctions: Any) -> Any:
    return stepfunctions._service_model("dynamodb")
