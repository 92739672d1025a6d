"""The only network code: fetching data sets and adapters from hubs, and pushing adapters."""
