"""Physical names and ARNs, fixed by configuration, so that policies and definitions can name what they may touch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

_FUNCTION_LIMIT = 64  # also IAM's for role names
_STATE_MACHINE_LIMIT = 80


def fingerprint(name: str) -> str:
    """Eight hexadecimal digits that stand for a name."""
    return hashlib.blake2b(name.encode(), digest_size=4).hexdigest()


def shorten(name: str, limit: int) -> str:
    """``name`` cut to ``limit`` characters; what is cut off is replaced by a fingerprint of the whole."""
    return name if len(name) <= limit else f"{name[: limit - 9]}-{fingerprint(name)}"


def resource_name(environment: str, thing: str) -> str:
    """The name of a resource of an environment: ``prod-dr-ledger``."""
    return f"{environment}-dr-{thing}"


@dataclass(frozen=True, kw_only=True)
class Names:
    """Names and ARNs of one environment in one account and region."""

    environment: str
    partition: str
    region: str
    account: str

    def __post_init__(self) -> None:
        if self.partition != "aws":
            # Step Functions' own resources and the Powertools layer are named for the commercial regions.
            raise ValueError(f"aws:region: found a region of partition {self.partition}. Expected one of aws.")

    def _arn(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def of(self, thing: str) -> str:
        """The name of a resource: ``prod-dr-ledger``."""
        return resource_name(self.environment, thing)

    def role(self, thing: str) -> str:
        """The name of a role. Roles are global, so it carries the region."""
        return shorten(f"{self.of(thing)}-{self.region}", _FUNCTION_LIMIT)

    def function(self, short_name: str) -> str:
        """The name of a Lambda function."""
        return shorten(self.of(short_name), _FUNCTION_LIMIT)

    def function_arn(self, name: str) -> str:
        """The ARN of a function (or of a pattern of names)."""
        return self._arn("lambda", f"function:{name}")

    def event_source_mapping_arn(self) -> str:
        """Every event source mapping: their ids are not known beforehand."""
        return self._arn("lambda", "event-source-mapping:*")

    def hard_reset(self, table_name: str) -> str:
        """The name of a table's hard-reset state machine."""
        name = self.of(f"hard-reset-{table_name}")
        if "." in name:
            # State machine names have no dots. The fingerprint keeps tables apart that differ in a dot only.
            name = f"{name.replace('.', '-')}-{fingerprint(name)}"
        return shorten(name, _STATE_MACHINE_LIMIT)

    @property
    def orchestrator(self) -> str:
        """The name of the orchestrator's state machine."""
        return self.of("orchestrator")

    @property
    def guardian(self) -> str:
        """The name of the guardian's state machine, and of the rule that starts it."""
        return self.of("guardian")

    @property
    def guardian_sweep(self) -> str:
        """The name of the schedule that starts the guardian."""
        return self.of("guardian-sweep")

    def state_machine_arn(self, name: str) -> str:
        """The ARN of a state machine (or of a pattern of names)."""
        return self._arn("states", f"stateMachine:{name}")

    def execution_arns(self, state_machine_name: str) -> list[str]:
        """Executions of a state machine, and of its Distributed Maps' children."""
        return [
            self._arn("states", f"execution:{state_machine_name}:*"),
            self._arn("states", f"execution:{state_machine_name}/*"),
        ]

    def nested_execution_rule_arn(self) -> str:
        """The rule by which Step Functions learns that a nested execution has ended."""
        return self._arn("events", "rule/StepFunctionsGetEventsForStepFunctionsExecutionRule")

    def table_arn(self, name: str) -> str:
        """The ARN of a table (or of a pattern of names)."""
        return self._arn("dynamodb", f"table/{name}")

    @property
    def temporary_tables_arn(self) -> str:
        """The tables that this environment restores to; see ``handlers.core.tables.restored_table_name``."""
        return self.table_arn(f"dr-{self.environment}.*")

    @property
    def ledger(self) -> str:
        """The name of the ledger table."""
        return self.of("ledger")

    @property
    def report_bucket(self) -> str:
        """The name of the report bucket: unique in the world by account and region."""
        return f"{self.of('reports')}-{self.account}-{self.region}"

    @property
    def topic(self) -> str:
        """The name of the notification topic."""
        return self.of("notifications")

    @property
    def topic_arn(self) -> str:
        """The ARN of the notification topic."""
        return self._arn("sns", self.topic)

    def log_group_arn(self, name: str) -> str:
        """The streams of a log group."""
        return self._arn("logs", f"log-group:{name}:*")
