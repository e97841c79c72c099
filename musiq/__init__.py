"""MUSIQ; python -m musiq.all_expt runs the paper's experiments with it."""

from common.system.errors import interruptible

interruptible()
