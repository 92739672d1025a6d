"""The only code that imports torch, transformers, adapters and scikit-learn."""
