"""One Lambda function of the recovery: its role, its log group, itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_aws as aws

from .names import Names
from .policies import Statement, allow
from .role import Role, RoleArgs

RUNTIME = "python3.12"
ARCHITECTURE = "arm64"
# AWS's public layer of Powertools 3.x for that runtime; version 27 is what the account offers in every region.
_POWERTOOLS_LAYER = "arn:{partition}:lambda:{region}:017000801446:layer:AWSLambdaPowertoolsPythonV3-python312-arm64:27"


def bundle(project: Path) -> pulumi.AssetArchive:
    """The code of all functions: every module below ``handlers/``, and nothing that a run leaves behind there."""
    files = sorted((project / "handlers").rglob("*.py"))
    return pulumi.AssetArchive({str(file.relative_to(project)): pulumi.FileAsset(str(file)) for file in files})


def powertools_layers(names: Names, layer_arn: str) -> list[str]:
    """The layers for a value of the configuration key ``powertoolsLayerArn``."""
    if layer_arn == "none":
        return []
    if layer_arn == "default":
        return [_POWERTOOLS_LAYER.format(partition=names.partition, region=names.region)]
    return [layer_arn]


@dataclass(frozen=True, kw_only=True)
class RecoveryFunctionArgs:
    """Arguments of :class:`RecoveryFunction`.

    Args:
        names: names and ARNs of this environment.
        short_name: the function's name without environment, e.g. ``purge-segment``; its module has underscores.
        description: what it does, for people in the console.
        code: the bundle.
        layers: ARNs of layers.
        statements: what its role allows and denies, beyond writing its own log.
        variables: environment variables.
        memory_mb: memory, and with it CPU: 1,769 MB is one vCPU.
        timeout_seconds: when Lambda ends an invocation.
        log_retention_days: how long its log is kept.
        kms_key_arn: customer-managed key that encrypts its log; None for CloudWatch Logs' own.
        tags: tags of everything.
    """

    names: Names
    short_name: str
    description: str
    code: pulumi.Archive
    layers: Sequence[str]
    statements: Sequence[Statement]
    variables: Mapping[str, pulumi.Input[str]]
    memory_mb: int
    timeout_seconds: int
    log_retention_days: int
    kms_key_arn: str | None
    tags: Mapping[str, str]


class RecoveryFunction(pulumi.ComponentResource):
    """A function with a role of its own."""

    arn: pulumi.Output[str]

    def __init__(self, name: str, args: RecoveryFunctionArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamodb-dr:index:RecoveryFunction", name, None, opts)
        function_name = args.names.function(args.short_name)
        log_group = aws.cloudwatch.LogGroup(
            f"{name}-log",
            name=f"/aws/lambda/{function_name}",
            retention_in_days=args.log_retention_days,
            kms_key_id=args.kms_key_arn,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        write_log = allow(
            "WriteOwnLog",
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            [args.names.log_group_arn(f"/aws/lambda/{function_name}")],
        )
        role = Role(
            name,
            RoleArgs(
                role_name=args.names.role(args.short_name),
                service="lambda.amazonaws.com",
                source_account=args.names.account,
                statements=[write_log, *args.statements],
                tags=args.tags,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        function = aws.lambda_.Function(
            name,
            name=function_name,
            description=args.description,
            role=role.arn,
            code=args.code,
            runtime=RUNTIME,
            architectures=[ARCHITECTURE],
            handler=f"handlers.{args.short_name.replace('-', '_')}.handler",
            layers=list(args.layers),
            memory_size=args.memory_mb,
            timeout=args.timeout_seconds,
            environment={"variables": {"POWERTOOLS_SERVICE_NAME": "dynamodb-dr", **args.variables}},
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[log_group, *role.policies]),
        )
        self.arn = function.arn
        self.register_outputs({"arn": self.arn})
