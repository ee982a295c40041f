"""One function a resource type: creates it by boto3 and returns its id and outputs.

Every function takes its inputs through `Inputs`, which refuses what the function did not read: an input that the
embedded AWS would ignore is an error, not a silence.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi

from localaws.engine.schema import InputError

Outputs = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Account:
    """Where resources are made.

    Attributes:
        account_id: twelve digits.
        region: e.g. "us-east-1".
        client: service name → boto3 client, or None to plan without creating anything.
    """

    account_id: str
    region: str
    client: Callable[[str], Any] | None

    def arn(self, service: str, resource: str, *, regional: bool = True) -> str:
        """The ARN of `resource`; without region for global services."""
        return f"arn:aws:{service}:{self.region if regional else ''}:{self.account_id}:{resource}"


class Inputs:
    """A resource's inputs (camelCase), each to be taken once; `finish` names those nobody took."""

    def __init__(self, where: str, values: Mapping[str, Any], *, auto_name: str) -> None:
        self._where = where
        self._values = {key: value for key, value in values.items() if value is not None}
        self.auto_name = auto_name
        for ignorable in ("region", "forceDestroy", "skipDestroy", "forceDetachPolicies", "timeouts"):
            self._values.pop(ignorable, None)

    def take(self, key: str, default: Any = None) -> Any:
        """The value of input `key`, whole numbers as int, or `default`."""
        return _whole(self._values.pop(key, default))

    def name(self, key: str = "name") -> str:
        """The physical name: the input, or as the engine makes one, the logical name and seven hex digits."""
        prefix = self._values.pop(f"{key}Prefix", None)
        given = self._values.pop(key, None)
        if given is not None:
            return str(given)
        return f"{prefix}{self.auto_name[-7:]}" if prefix else self.auto_name

    def finish(self) -> None:
        """Refuse what is left.

        Raises:
            InputError: naming the inputs that the embedded AWS does not carry out.
        """
        left = sorted(key for key, value in self._values.items() if value not in ([], {}))
        if left:
            raise InputError(f"{self._where}: the embedded AWS does not support the inputs {', '.join(left)}.")


def create(account: Account, token: str, name: str, values: Mapping[str, Any], urn: str) -> tuple[str, Outputs]:
    """Create (or, without clients, plan) one resource; returns its id and outputs, inputs included.

    Raises:
        InputError: the type is unknown, or an input is not supported.
    """
    creator = CREATORS.get(token)
    if creator is None:
        raise InputError(f"The embedded AWS cannot create the resource type {token} ('{name}').")
    suffix = hashlib.sha256(urn.encode()).hexdigest()[:7]
    inputs = Inputs(f"{token} '{name}'", values, auto_name=f"{name}-{suffix}")
    identity, outputs = creator(account, inputs)
    return identity, {**values, "region": account.region, **outputs}


def _role(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    name = inputs.name()
    path = inputs.take("path", "/")
    request = {
        "RoleName": name,
        "Path": path,
        "AssumeRolePolicyDocument": inputs.take("assumeRolePolicy"),
        **_present(
            Description=inputs.take("description"),
            MaxSessionDuration=inputs.take("maxSessionDuration"),
            PermissionsBoundary=inputs.take("permissionsBoundary"),
            Tags=_tag_list(inputs.take("tags")),
        ),
    }
    inline = inputs.take("inlinePolicies", [])
    managed = inputs.take("managedPolicyArns", [])
    inputs.finish()
    unique_id = "AROAPLANNED"
    if account.client:
        iam = account.client("iam")
        unique_id = iam.create_role(**request)["Role"]["RoleId"]
        for policy in inline:
            iam.put_role_policy(RoleName=name, PolicyName=policy["name"], PolicyDocument=policy["policy"])
        for policy_arn in managed:
            iam.attach_role_policy(RoleName=name, PolicyArn=policy_arn)
    arn = account.arn("iam", f"role{path}{name}", regional=False)
    return name, {"name": name, "arn": arn, "path": path, "uniqueId": unique_id}


def _role_policy(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    name, role, policy = inputs.name(), str(inputs.take("role")), inputs.take("policy")
    inputs.finish()
    if account.client:
        account.client("iam").put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=policy)
    return f"{role}:{name}", {"name": name, "role": role, "policy": policy}


def _policy(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    name, policy, tags = inputs.name(), inputs.take("policy"), inputs.take("tags")
    inputs.finish()
    arn = account.arn("iam", f"policy/{name}", regional=False)
    if account.client:
        account.client("iam").create_policy(PolicyName=name, PolicyDocument=policy, **_present(Tags=_tag_list(tags)))
    return arn, {"name": name, "arn": arn, "policy": policy}


def _role_policy_attachment(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    role, policy_arn = str(inputs.take("role")), inputs.take("policyArn")
    inputs.finish()
    if account.client:
        account.client("iam").attach_role_policy(RoleName=role, PolicyArn=policy_arn)
    return f"{role}/{policy_arn}", {"role": role, "policyArn": policy_arn}


def _function(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    name = inputs.name()
    code = zip_of(inputs.take("code"))
    environment = inputs.take("environment") or {}
    reserved = inputs.take("reservedConcurrentExecutions")
    inputs.take("sourceCodeHash")
    request = {
        "FunctionName": name,
        "Role": inputs.take("role"),
        "Code": {"ZipFile": code},
        "PackageType": inputs.take("packageType", "Zip"),
        **_present(
            Handler=inputs.take("handler"),
            Runtime=inputs.take("runtime"),
            Description=inputs.take("description"),
            Timeout=inputs.take("timeout", 3),
            MemorySize=inputs.take("memorySize", 128),
            Architectures=inputs.take("architectures"),
            Environment={"Variables": environment["variables"]} if environment.get("variables") else None,
            EphemeralStorage=_pascal(inputs.take("ephemeralStorage")),
            TracingConfig=_pascal(inputs.take("tracingConfig")),
            DeadLetterConfig=_pascal(inputs.take("deadLetterConfig")),
            LoggingConfig=_pascal(inputs.take("loggingConfig")),
            Layers=inputs.take("layers"),
            Tags=inputs.take("tags"),
            Publish=inputs.take("publish"),
        ),
    }
    inputs.finish()
    arn = account.arn("lambda", f"function:{name}")
    if account.client:
        functions = account.client("lambda")
        functions.create_function(**request)
        if reserved is not None and reserved >= 0:
            functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=reserved)
    invoke = f"arn:aws:apigateway:{account.region}:lambda:path/2015-03-31/functions/{arn}/invocations"
    return name, {
        "name": name,
        "arn": arn,
        "qualifiedArn": f"{arn}:$LATEST",
        "invokeArn": invoke,
        "version": "$LATEST",
        "sourceCodeSize": len(code),
    }


def _table(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    name = inputs.name()
    hash_key, range_key = inputs.take("hashKey"), inputs.take("rangeKey")
    billing = inputs.take("billingMode", "PROVISIONED")
    read, write = inputs.take("readCapacity", 1), inputs.take("writeCapacity", 1)
    throughput = None if billing == "PAY_PER_REQUEST" else {"ReadCapacityUnits": read, "WriteCapacityUnits": write}
    global_indexes = [_index_request(index, throughput) for index in inputs.take("globalSecondaryIndexes", [])]
    local_indexes = [
        _index_request({**index, "hashKey": hash_key}, None) for index in inputs.take("localSecondaryIndexes", [])
    ]
    attributes = inputs.take("attributes", [])
    keys = _key_schema(hash_key, range_key)
    used = {
        key["AttributeName"]
        for part in [{"KeySchema": keys}, *global_indexes, *local_indexes]
        for key in part["KeySchema"]
    }
    defined = {attribute["name"] for attribute in attributes}
    if used != defined:
        raise InputError(
            f"aws:dynamodb/table:Table '{name}': attributes must be exactly the key attributes of the table and its "
            f"indexes. Unused: {sorted(defined - used)}; undefined: {sorted(used - defined)}."
        )
    stream = inputs.take("streamEnabled", False)
    view = inputs.take("streamViewType")
    recovery = inputs.take("pointInTimeRecovery")
    ttl = inputs.take("ttl")
    encryption = inputs.take("serverSideEncryption")
    request = {
        "TableName": name,
        "KeySchema": keys,
        "AttributeDefinitions": [
            {"AttributeName": attribute["name"], "AttributeType": attribute["type"]} for attribute in attributes
        ],
        "BillingMode": billing,
        **_present(
            ProvisionedThroughput=throughput,
            GlobalSecondaryIndexes=global_indexes or None,
            LocalSecondaryIndexes=local_indexes or None,
            StreamSpecification={"StreamEnabled": True, "StreamViewType": view} if stream else None,
            SSESpecification=_present(Enabled=encryption["enabled"], KMSMasterKeyId=encryption.get("kmsKeyArn"))
            if encryption
            else None,
            DeletionProtectionEnabled=inputs.take("deletionProtectionEnabled"),
            TableClass=inputs.take("tableClass"),
            Tags=_tag_list(inputs.take("tags")),
        ),
    }
    inputs.finish()
    arn = account.arn("dynamodb", f"table/{name}")
    stream_arn = ""
    if account.client:
        dynamodb = account.client("dynamodb")
        created = dynamodb.create_table(**request)["TableDescription"]
        stream_arn = created.get("LatestStreamArn", "")
        dynamodb.get_waiter("table_exists").wait(TableName=name)
        if recovery and recovery.get("enabled"):
            dynamodb.update_continuous_backups(
                TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
            )
        if ttl and ttl.get("enabled", True) and ttl.get("attributeName"):
            dynamodb.update_time_to_live(
                TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": ttl["attributeName"]}
            )
    return name, {
        "name": name,
        "arn": arn,
        "hashKey": hash_key,
        "streamArn": stream_arn,
        "streamLabel": stream_arn.rpartition("/")[2],
    }


def _index_request(index: Mapping[str, Any], throughput: Mapping[str, int] | None) -> dict[str, Any]:
    return {
        "IndexName": index["name"],
        "KeySchema": _key_schema(index["hashKey"], index.get("rangeKey")),
        "Projection": _present(
            ProjectionType=index["projectionType"], NonKeyAttributes=index.get("nonKeyAttributes") or None
        ),
        **_present(ProvisionedThroughput=throughput),
    }


def _key_schema(hash_key: str, range_key: str | None) -> list[dict[str, str]]:
    keys = [{"AttributeName": hash_key, "KeyType": "HASH"}]
    if range_key:
        keys.append({"AttributeName": range_key, "KeyType": "RANGE"})
    return keys


def _topic(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    name = inputs.name()
    attributes = _present(
        DisplayName=inputs.take("displayName"),
        KmsMasterKeyId=inputs.take("kmsMasterKeyId"),
        Policy=inputs.take("policy"),
    )
    tags = _tag_list(inputs.take("tags")) or []
    inputs.finish()
    arn = account.arn("sns", name)
    if account.client:
        account.client("sns").create_topic(Name=name, Attributes=attributes, Tags=tags)
    return arn, {"name": name, "arn": arn, "owner": account.account_id}


def _topic_policy(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    arn, policy = str(inputs.take("arn")), inputs.take("policy")
    inputs.finish()
    if account.client:
        account.client("sns").set_topic_attributes(TopicArn=arn, AttributeName="Policy", AttributeValue=policy)
    return arn, {"arn": arn, "owner": account.account_id}


def _log_group(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    name, days = inputs.name(), inputs.take("retentionInDays", 0)
    request = _present(
        kmsKeyId=inputs.take("kmsKeyId"), tags=inputs.take("tags"), logGroupClass=inputs.take("logGroupClass")
    )
    inputs.finish()
    if days not in RETENTION_DAYS:
        raise InputError(f"aws:cloudwatch/logGroup:LogGroup '{name}': retention of {days} days is not one AWS offers.")
    if account.client:
        logs = account.client("logs")
        logs.create_log_group(logGroupName=name, **request)
        if days:
            logs.put_retention_policy(logGroupName=name, retentionInDays=days)
    return name, {"name": name, "arn": account.arn("logs", f"log-group:{name}"), "retentionInDays": days}


def _state_machine(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    name = inputs.name()
    logging = inputs.take("loggingConfiguration") or {}
    destination = logging.get("logDestination")
    if destination is not None and not destination.endswith(":*"):
        raise InputError(
            f"aws:sfn/stateMachine:StateMachine '{name}': the log destination must end with ':*', found {destination}."
        )
    tracing = inputs.take("tracingConfiguration") or {}
    request = {
        "name": name,
        "roleArn": inputs.take("roleArn"),
        "definition": inputs.take("definition"),
        "type": inputs.take("type", "STANDARD"),
        **_present(
            loggingConfiguration=_present(
                level=logging.get("level", "OFF"),
                includeExecutionData=logging.get("includeExecutionData", False),
                destinations=[{"cloudWatchLogsLogGroup": {"logGroupArn": destination}}] if destination else None,
            )
            if logging
            else None,
            tracingConfiguration={"enabled": tracing["enabled"]} if tracing else None,
            tags=[{"key": key, "value": value} for key, value in (inputs.take("tags") or {}).items()] or None,
            publish=inputs.take("publish"),
        ),
    }
    inputs.finish()
    arn = account.arn("states", f"stateMachine:{name}")
    if account.client:
        account.client("stepfunctions").create_state_machine(**request)
    return arn, {"name": name, "arn": arn, "status": "ACTIVE", "type": request["type"]}


def _bucket(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    name, tags = inputs.name("bucket"), _tag_list(inputs.take("tags"))
    lock = inputs.take("objectLockEnabled", False)
    inputs.finish()
    if account.client:
        s3 = account.client("s3")
        s3.create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if lock else {}))
        if tags:
            s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
    return name, {
        "bucket": name,
        "arn": f"arn:aws:s3:::{name}",
        "bucketDomainName": f"{name}.s3.amazonaws.com",
        "bucketRegionalDomainName": f"{name}.s3.{account.region}.amazonaws.com",
    }


def _bucket_versioning(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    bucket, versioning = str(inputs.take("bucket")), inputs.take("versioningConfiguration")
    inputs.finish()
    if account.client:
        account.client("s3").put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": versioning["status"]}
        )
    return bucket, {}


def _bucket_encryption(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    bucket = str(inputs.take("bucket"))
    rules = []
    for rule in inputs.take("rules"):
        default = rule.get("applyServerSideEncryptionByDefault")
        rules.append(
            _present(
                ApplyServerSideEncryptionByDefault=_present(
                    SSEAlgorithm=default["sseAlgorithm"], KMSMasterKeyID=default.get("kmsMasterKeyId")
                )
                if default
                else None,
                BucketKeyEnabled=rule.get("bucketKeyEnabled"),
            )
        )
    inputs.finish()
    if account.client:
        account.client("s3").put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})
    return bucket, {}


def _bucket_public_access(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    bucket = str(inputs.take("bucket"))
    inputs.take("skipDestroy")
    configuration = {
        key[0].upper() + key[1:]: bool(inputs.take(key, False))
        for key in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    }
    inputs.finish()
    if account.client:
        account.client("s3").put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=configuration)
    return bucket, {}


def _bucket_policy(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    bucket, policy = str(inputs.take("bucket")), inputs.take("policy")
    inputs.finish()
    if account.client:
        account.client("s3").put_bucket_policy(Bucket=bucket, Policy=policy)
    return bucket, {}


def _bucket_lifecycle(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    bucket = str(inputs.take("bucket"))
    inputs.take("transitionDefaultMinimumObjectSize")
    rules = [_lifecycle_rule(rule) for rule in inputs.take("rules", [])]
    inputs.finish()
    if account.client:
        account.client("s3").put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    return bucket, {}


def _lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    request = {"ID": rule["id"], "Status": rule["status"], "Filter": {"Prefix": ""}}
    condition = rule.get("filter") or {}
    if condition.get("prefix"):
        request["Filter"] = {"Prefix": condition["prefix"]}
    for key, spelling in (
        ("expiration", "Expiration"),
        ("noncurrentVersionExpiration", "NoncurrentVersionExpiration"),
        ("abortIncompleteMultipartUpload", "AbortIncompleteMultipartUpload"),
    ):
        if rule.get(key):
            request[spelling] = _pascal(rule[key])
    for key, spelling in (
        ("transitions", "Transitions"),
        ("noncurrentVersionTransitions", "NoncurrentVersionTransitions"),
    ):
        if rule.get(key):
            request[spelling] = [_pascal(element) for element in rule[key]]
    return request


def _bucket_ownership(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    bucket, rule = str(inputs.take("bucket")), inputs.take("rule")
    inputs.finish()
    if account.client:
        account.client("s3").put_bucket_ownership_controls(
            Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": rule["objectOwnership"]}]}
        )
    return bucket, {}


def _event_rule(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    name, pattern = inputs.name(), inputs.take("eventPattern")
    request = _present(
        Description=inputs.take("description"),
        EventPattern=pattern,
        ScheduleExpression=inputs.take("scheduleExpression"),
        State=inputs.take("state"),
        Tags=_tag_list(inputs.take("tags")),
    )
    inputs.finish()
    arn = account.arn("events", f"rule/{name}")
    if account.client:
        account.client("events").put_rule(Name=name, **request)
    return name, {"name": name, "arn": arn, "eventBusName": "default"}


def _event_target(account: Account, inputs: Inputs) -> tuple[str, Outputs]:
    rule, identity = str(inputs.take("rule")), str(inputs.take("targetId"))
    transformer = inputs.take("inputTransformer")
    target = {
        "Id": identity,
        "Arn": inputs.take("arn"),
        **_present(
            RoleArn=inputs.take("roleArn"),
            Input=inputs.take("input"),
            InputTransformer=_present(
                InputPathsMap=transformer.get("inputPaths"), InputTemplate=transformer["inputTemplate"]
            )
            if transformer
            else None,
        ),
    }
    inputs.finish()
    if account.client:
        answer = account.client("events").put_targets(Rule=rule, Targets=[target])
        if answer["FailedEntryCount"]:
            raise InputError(f"aws:cloudwatch/eventTarget:EventTarget '{identity}': {answer['FailedEntries']}.")
    return f"{rule}-{identity}", {"targetId": identity, "rule": rule}


# The retention periods CloudWatch Logs offers, in days; 0 keeps for ever.
RETENTION_DAYS = frozenset(
    (0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
)

CREATORS: dict[str, Callable[[Account, Inputs], tuple[str, Outputs]]] = {
    "aws:iam/role:Role": _role,
    "aws:iam/policy:Policy": _policy,
    "aws:iam/rolePolicy:RolePolicy": _role_policy,
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": _role_policy_attachment,
    "aws:lambda/function:Function": _function,
    "aws:dynamodb/table:Table": _table,
    "aws:sns/topic:Topic": _topic,
    "aws:sns/topicPolicy:TopicPolicy": _topic_policy,
    "aws:cloudwatch/logGroup:LogGroup": _log_group,
    "aws:cloudwatch/eventRule:EventRule": _event_rule,
    "aws:cloudwatch/eventTarget:EventTarget": _event_target,
    "aws:sfn/stateMachine:StateMachine": _state_machine,
    "aws:s3/bucket:Bucket": _bucket,
    "aws:s3/bucketVersioning:BucketVersioning": _bucket_versioning,
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": _bucket_encryption,
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": _bucket_public_access,
    "aws:s3/bucketPolicy:BucketPolicy": _bucket_policy,
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": _bucket_lifecycle,
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": _bucket_ownership,
}


def zip_of(archive: Any) -> bytes:
    """The zip file of a Pulumi archive: an AssetArchive of files, strings and archives, or a FileArchive of a folder.

    Raises:
        InputError: another kind of archive, or a file that does not exist.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for path, content in sorted(_files_of("", archive)):
            # A fixed date: the same files give the same bytes.
            target.writestr(zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def _files_of(path: str, asset: Any) -> list[tuple[str, bytes]]:
    if isinstance(asset, pulumi.AssetArchive):
        return [
            file
            for name, member in asset.assets.items()
            for file in _files_of(f"{path}/{name}" if path else name, member)
        ]
    if isinstance(asset, pulumi.FileArchive):
        root = Path(asset.path)
        if root.is_dir():
            return [
                (f"{path}/{file.relative_to(root)}" if path else str(file.relative_to(root)), file.read_bytes())
                for file in root.rglob("*")
                if file.is_file() and "__pycache__" not in file.parts
            ]
        if zipfile.is_zipfile(root):
            with zipfile.ZipFile(root) as source:
                return [(f"{path}/{name}" if path else name, source.read(name)) for name in source.namelist()]
    if isinstance(asset, pulumi.FileAsset):
        try:
            return [(path, Path(asset.path).read_bytes())]
        except OSError as error:
            raise InputError(f"The archive member {path} cannot be read: {error}.") from error
    if isinstance(asset, pulumi.StringAsset):
        return [(path, str(asset.text).encode())]
    raise InputError(f"The embedded AWS cannot package {type(asset).__name__} at '{path}'.")


def _present(**members: Any) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not None}


def _tag_list(tags: Mapping[str, str] | None) -> list[dict[str, str]] | None:
    return [{"Key": key, "Value": value} for key, value in tags.items()] if tags else None


def _pascal(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key[0].upper() + key[1:]: _pascal(member) for key, member in value.items() if member is not None}
    return value


def _whole(value: Any) -> Any:
    """Numbers reach the engine as floats; whole ones become int, at any depth."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _whole(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_whole(member) for member in value]
    return value


def json_outputs(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Stack outputs as JSON would carry them.

    Raises:
        TypeError: an output holds something that JSON has no form for.
    """
    return dict(json.loads(json.dumps(_whole(dict(outputs)))))
