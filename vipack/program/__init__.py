"""Reading a Pyro program: its sites, its plates, its parameters, and log p(x, z) as a function."""

from vipack.program.checks.check import Check, check_program
from vipack.program.checks.modes import warnings_of_networks
from vipack.program.evaluation.logjoint import LogJoint
from vipack.program.program import GivenGuide, Program, make_guide
from vipack.program.running.params import Parameters
from vipack.program.running.randomness import RandomState, TorchState, seeded
from vipack.program.running.runs import Arguments
from vipack.program.running.scans import Body, body_of, captured_scans, scan
from vipack.program.sites.plates import BatchPlate
from vipack.program.sites.sites import Site, SiteTable, read_sites

__all__ = [
    "Arguments",
    "BatchPlate",
    "Body",
    "Check",
    "GivenGuide",
    "LogJoint",
    "Parameters",
    "Program",
    "RandomState",
    "Site",
    "SiteTable",
    "TorchState",
    "body_of",
    "captured_scans",
    "check_program",
    "make_guide",
    "read_sites",
    "scan",
    "seeded",
    "warnings_of_networks",
]
