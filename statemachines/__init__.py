"""The state machines' definitions: pure functions from configuration to Amazon States Language (JSONata)."""
