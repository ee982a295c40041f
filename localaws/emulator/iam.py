"""Asking whether a role may do what a state machine does in its name, through ministack's own policy evaluation."""

from typing import Any

from localaws.emulator import observability, patching


class AccessDeniedError(Exception):
    """The role's policies do not allow a call; the message reads as IAM's."""

    def __init__(self, principal: str, action: str, resource: str, *, explicit: bool) -> None:
        reason = (
            "with an explicit deny in an identity-based policy"
            if explicit
            else f"because no identity-based policy allows the {action} action"
        )
        super().__init__(f"User: {principal} is not authorized to perform: {action} on resource: {resource} {reason}")
        self.action = action
        self.resource = resource


def require_evaluator() -> None:
    """Check that ministack still evaluates policies the way this module asks it to."""
    from ministack.core import iam_evaluator

    patching.require(iam_evaluator, "_gather_role_policies", "(role_name, account_id)")
    patching.require(iam_evaluator, "_permissions_boundary", "(store, name, account_id)")
    patching.require(iam_evaluator, "evaluate", "(ctx, policies, limits)")
    patching.require_names(iam_evaluator, "EvalContext", "_request_caller_arn")


def session_arn(role_arn: str, session: str) -> str:
    """The principal that acts when `session` assumes the role."""
    account, name = role_arn.split(":")[4], role_arn.rpartition("/")[2]
    return f"arn:aws:sts::{account}:assumed-role/{name}/{session}"


def authorize(role_arn: str, session: str, action: str, resource: str, region: str) -> None:
    """Let `action` on `resource` pass if the role's policies and boundary allow it; the decision is logged.

    Raises:
        AccessDeniedError: they do not, or one of them denies.
    """
    from ministack.core import iam_evaluator
    from ministack.services import iam as iam_service

    account, name = role_arn.split(":")[4], role_arn.rpartition("/")[2]
    principal = session_arn(role_arn, session)
    context = iam_evaluator.EvalContext(
        principal_arn=principal,
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource,
        region=region,
        service_context={"aws:tagkeys": None},
    )
    limits: Any = iam_evaluator._permissions_boundary(iam_service._roles, name, account)
    result = iam_evaluator.evaluate(context, iam_evaluator._gather_role_policies(name, account), *limits)
    observability.record_decision(principal, action, resource, result.decision)
    if result.decision != "Allow":
        raise AccessDeniedError(principal, action, resource, explicit=result.decision == "Deny")
