"""`python -m adapterxlt`, as `accelerate launch` and `torchrun` start it several times."""

from adapterxlt.cli import main

main()
