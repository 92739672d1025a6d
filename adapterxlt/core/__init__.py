"""Values and pure functions: no torch, no network, no durable writes."""
