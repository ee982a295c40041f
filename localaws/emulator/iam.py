"""Asking whether a role may do what a state machine does in its name, through ministack's own policy evaluation."""

from typing import Any

from localaws.emulator import kms_use, observability, patching


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
    patching.require(iam_evaluator, "_names_condition_key", "(policies, prefix)")
    patching.require(iam_evaluator, "_resource_policy", "(service, resource_arn)")
    patching.require(
        iam_evaluator, "combine_resource_policy", "(identity, ctx, policy, owner_account, required, limits)"
    )
    patching.require_names(iam_evaluator, "EvalContext", "_request_caller_arn")
    kms_use.require_stores()


def session_arn(role_arn: str, session: str) -> str:
    """The principal that acts when `session` assumes the role."""
    account, name = role_arn.split(":")[4], role_arn.rpartition("/")[2]
    return f"arn:aws:sts::{account}:assumed-role/{name}/{session}"


def authorize(role_arn: str, session: str, action: str, resource: str, region: str) -> None:
    """Let `action` on `resource` pass if the role's policies and boundary allow it, and the use of keys with it.

    Every decision is logged.

    Raises:
        AccessDeniedError: they do not, or one of them denies.
    """
    _authorize(role_arn, session, action, resource, region, {})
    for used, key, context in kms_use.key_uses(action, resource, region):
        _authorize(role_arn, session, used, key, region, context)


def _authorize(
    role_arn: str, session: str, action: str, resource: str, region: str, service_context: dict[str, Any]
) -> None:
    from ministack.core import iam_evaluator
    from ministack.services import iam as iam_service
    from ministack.services import tagging

    account, name = role_arn.split(":")[4], role_arn.rpartition("/")[2]
    principal = session_arn(role_arn, session)
    context = iam_evaluator.EvalContext(
        principal_arn=principal,
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource,
        region=region,
        service_context={"aws:tagkeys": None, **service_context},
    )
    policies = iam_evaluator._gather_role_policies(name, account)
    if iam_evaluator._names_condition_key(policies, "aws:resourcetag/"):
        for tag, value in (tagging.resource_tags(resource) or {}).items():
            context.service_context[f"aws:resourcetag/{tag}".lower()] = value
    limits: Any = iam_evaluator._permissions_boundary(iam_service._roles, name, account)
    result = iam_evaluator.evaluate(context, policies, *limits)
    if action.startswith("kms:"):
        # The key's own policy has to allow, too; for other services an identity policy is enough in one account.
        found = iam_evaluator._resource_policy("kms", resource)
        if found is not None:
            result = iam_evaluator.combine_resource_policy(result, context, *found, required=True, limits=limits)
    via = str(service_context.get(kms_use.VIA_SERVICE, ""))
    observability.record_decision(principal, action, resource, result.decision, via)
    if result.decision != "Allow":
        raise AccessDeniedError(principal, action, resource, explicit=result.decision == "Deny")
