"""Runs programs nobody has read: probed layers, a fresh process per run, plain data out."""

from rorqual.sandbox.levels import Layer, SandboxLevel, SandboxReport
from rorqual.sandbox.limits import JSON, CallResult, Limits, Outcome, Status
from rorqual.sandbox.probe import probe
from rorqual.sandbox.sandbox import Sandbox

__all__ = [
    "JSON",
    "CallResult",
    "Layer",
    "Limits",
    "Outcome",
    "Sandbox",
    "SandboxLevel",
    "SandboxReport",
    "Status",
    "probe",
]
