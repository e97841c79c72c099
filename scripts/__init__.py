"""The commands: python -m scripts.NAME."""

from common.system.errors import interruptible

interruptible()
