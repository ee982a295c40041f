"""EventBridge starts a state machine in the name of the target's role, and only if that role may."""

from typing import Any

from localaws.emulator import iam, patching

_SESSION = "eventbridge"


def apply() -> None:
    """Ask for the role's permission before a rule starts an execution; without it the event is lost, as on AWS."""
    from ministack.services import eventbridge

    patching.require_names(eventbridge, "get_region")

    def invoke(target: dict[str, Any], event: Any, rule: Any, view: Any = None) -> None:
        arn = str(target.get("Arn", ""))
        if ":stateMachine:" in arn:
            try:
                iam.authorize(str(target["RoleArn"]), _SESSION, "states:StartExecution", arn, eventbridge.get_region())
            except (KeyError, iam.AccessDeniedError) as refusal:
                eventbridge.logger.warning("EventBridge: target %s not started: %s", arn, refusal)
                return
        original(target, event, rule, view)

    original = patching.replace(eventbridge, "_invoke_target", "(target, event, rule, view)", invoke)
