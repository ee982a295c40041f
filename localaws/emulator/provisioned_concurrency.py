"""Provisioned concurrency as far as a freeze meets it: its list, and what AWS refuses beside reserved concurrency.

ministack keeps the configurations, but lists none, and lets a function be reserved below what is provisioned. On AWS a
deletion takes effect after a while; here at once.
"""

from typing import Any

from localaws.emulator import patching


def apply() -> None:
    """Serve the list, and refuse what contradicts the other setting."""
    from ministack.core.responses import error_response_json, json_response
    from ministack.services import lambda_svc

    patching.require_names(lambda_svc, "_functions")
    function_arn = patching.require(lambda_svc, "_func_arn", "(name)")

    def provisioned(name: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = lambda_svc._functions[name].get("provisioned_concurrency", {})
        return found

    def requested(name: str) -> int:
        return sum(config["RequestedProvisionedConcurrentExecutions"] for config in provisioned(name).values())

    def refuse(message: str) -> Any:
        return error_response_json("InvalidParameterValueException", message, 400)

    def get_or_list(func_name: str, qualifier: str | None) -> Any:
        if qualifier or func_name not in lambda_svc._functions:
            return original_get(func_name, qualifier)
        configs = [
            {"FunctionArn": f"{function_arn(func_name)}:{name}", **config}
            for name, config in provisioned(func_name).items()
        ]
        return json_response({"ProvisionedConcurrencyConfigs": configs})

    original_get = patching.replace(lambda_svc, "_get_provisioned_concurrency", "(func_name, qualifier)", get_or_list)

    def put_provisioned(func_name: str, qualifier: str | None, data: dict[str, Any]) -> Any:
        if func_name in lambda_svc._functions:
            if qualifier in (None, "", "$LATEST"):
                return refuse("Provisioned Concurrency Configs cannot be applied to unpublished function versions.")
            reserved = lambda_svc._functions[func_name].get("concurrency")
            others = sum(
                config["RequestedProvisionedConcurrentExecutions"]
                for name, config in provisioned(func_name).items()
                if name != qualifier
            )
            if reserved is not None and others + data.get("ProvisionedConcurrentExecutions", 0) > reserved:
                return refuse("Requested provisioned concurrency exceeds the function's reserved concurrency.")
        return original_put(func_name, qualifier, data)

    original_put = patching.replace(
        lambda_svc, "_put_provisioned_concurrency", "(func_name, qualifier, data)", put_provisioned
    )

    def put_reserved(func_name: str, data: dict[str, Any]) -> Any:
        wanted = data.get("ReservedConcurrentExecutions", 0)
        if func_name in lambda_svc._functions and wanted < requested(func_name):
            return refuse(f"Reserved concurrency {wanted} is lower than the function's provisioned concurrency.")
        return original_reserve(func_name, data)

    original_reserve = patching.replace(lambda_svc, "_put_function_concurrency", "(func_name, data)", put_reserved)
