"""`raccoon vplm`: make, examine and exchange VPLM data sets; one module a verb."""

import argparse
from typing import Any

from raccoon.cli.vplm import annotate, build, check, exchange, replay, stats, synth

VERBS = (synth, build, annotate, check, stats, exchange, replay)


def add_parser(subparsers: Any) -> None:
    """Register the verb and its own verbs."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "vplm",
        help="make, examine and exchange VPLM data sets",
        description="Make, examine and exchange VPLM data sets.",
    )
    verbs = parser.add_subparsers(dest="vplm_verb", metavar="VERB", title="verbs", required=True)
    for verb in VERBS:
        verb.add_parser(verbs)
