"""Answers to the provider functions a program calls while it runs, e.g. aws.get_caller_identity."""

from collections.abc import Callable, Mapping
from typing import Any


class UnknownInvokeError(ValueError):
    """The program calls a provider function that the embedded AWS does not answer."""


class Invokes:
    """Answers with the account's facts, and about tables what `describe_table` says.

    Args:
        account_id: twelve digits.
        region: e.g. "us-east-1".
        describe_table: table name → the `Table` member of DescribeTable's answer, plus "PitrEnabled".
    """

    def __init__(self, account_id: str, region: str, describe_table: Callable[[str], Mapping[str, Any]]) -> None:
        self._account_id = account_id
        self._region = region
        self._describe_table = describe_table

    def call(self, token: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the function `token`, e.g. "aws:index/getRegion:getRegion".

        Raises:
            UnknownInvokeError: naming the function.
        """
        function = token.rpartition(":")[2]
        if function == "getCallerIdentity":
            return {
                "accountId": self._account_id,
                "arn": f"arn:aws:iam::{self._account_id}:root",
                "userId": self._account_id,
                "id": self._account_id,
            }
        if function == "getRegion":
            region = arguments.get("region") or arguments.get("name") or self._region
            return {
                "id": region,
                "name": region,
                "region": region,
                "description": region,
                "endpoint": f"ec2.{region}.amazonaws.com",
            }
        if function == "getPartition":
            return {
                "id": "aws",
                "partition": "aws",
                "dnsSuffix": "amazonaws.com",
                "reverseDnsPrefix": "com.amazonaws",
            }
        if token == "aws:dynamodb/getTable:getTable":  # noqa: S105  # a function token, not a secret
            return self._table(str(arguments["name"]))
        raise UnknownInvokeError(f"The program calls {token}, which the embedded AWS does not answer.")

    def _table(self, name: str) -> dict[str, Any]:
        table = self._describe_table(name)
        keys = {key["KeyType"]: key["AttributeName"] for key in table["KeySchema"]}
        stream = table.get("StreamSpecification") or {}
        throughput = table.get("ProvisionedThroughput") or {}
        return {
            "id": name,
            "name": name,
            "arn": table["TableArn"],
            "region": self._region,
            "attributes": [
                {"name": attribute["AttributeName"], "type": attribute["AttributeType"]}
                for attribute in table["AttributeDefinitions"]
            ],
            "hashKey": keys["HASH"],
            "rangeKey": keys.get("RANGE", ""),
            "billingMode": (table.get("BillingModeSummary") or {}).get("BillingMode", "PROVISIONED"),
            "deletionProtectionEnabled": table.get("DeletionProtectionEnabled", False),
            "globalSecondaryIndexes": [_index(index) for index in table.get("GlobalSecondaryIndexes") or []],
            "localSecondaryIndexes": [_index(index) for index in table.get("LocalSecondaryIndexes") or []],
            "onDemandThroughputs": [],
            "warmThroughputs": [],
            "pointInTimeRecovery": {"enabled": table["PitrEnabled"], "recoveryPeriodInDays": 35},
            "readCapacity": throughput.get("ReadCapacityUnits", 0),
            "writeCapacity": throughput.get("WriteCapacityUnits", 0),
            "replicas": [],
            "serverSideEncryption": _encryption(table.get("SSEDescription") or {}),
            "streamArn": table.get("LatestStreamArn", ""),
            "streamLabel": table.get("LatestStreamLabel", ""),
            "streamEnabled": bool(stream.get("StreamEnabled")),
            "streamViewType": stream.get("StreamViewType", ""),
            "tableClass": "STANDARD",
            "tags": {},
            "ttl": {"enabled": False, "attributeName": ""},
        }


def _encryption(description: Mapping[str, Any]) -> dict[str, Any]:
    """Enabled, with the key, where a KMS key of the account encrypts the table; AWS's own keys are not described."""
    enabled = description.get("SSEType") == "KMS" and description.get("Status") == "ENABLED"
    return {"enabled": enabled, "kmsKeyArn": description.get("KMSMasterKeyArn", "") if enabled else ""}


def _index(index: Mapping[str, Any]) -> dict[str, Any]:
    keys = {key["KeyType"]: key["AttributeName"] for key in index["KeySchema"]}
    return {
        "name": index["IndexName"],
        "hashKey": keys["HASH"],
        "rangeKey": keys.get("RANGE", ""),
        "projectionType": index["Projection"]["ProjectionType"],
        "nonKeyAttributes": index["Projection"].get("NonKeyAttributes", []),
        "readCapacity": 0,
        "writeCapacity": 0,
        "keySchemas": [],
        "onDemandThroughputs": [],
        "warmThroughputs": [],
    }
