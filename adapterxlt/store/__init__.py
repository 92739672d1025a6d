"""The only code that writes durable bytes."""
