"""From an `AdapterSpec` to the configuration that the `adapters` library builds modules from.

Only fields a row of `core.specs.METHODS` knows are passed on, because the library accepts any key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters import BnConfig, DoubleSeqBnConfig, ParBnConfig, SeqBnConfig, SeqBnInvConfig

_CONFIGS: dict[str, type[BnConfig]] = {
    "seq_bn": SeqBnConfig,
    "seq_bn_inv": SeqBnInvConfig,
    "double_seq_bn": DoubleSeqBnConfig,
    "par_bn": ParBnConfig,
}


def config_of(spec: Mapping[str, Any]) -> BnConfig:
    """The library's configuration of a resolved specification (`AdapterSpec.resolved`)."""
    return _CONFIGS[spec["method"]](
        reduction_factor=spec["reduction_factor"],
        non_linearity=spec["non_linearity"],
        leave_out=list(spec.get("leave_out") or []),
    )
