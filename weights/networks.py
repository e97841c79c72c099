"""The four networks of the paper, by name."""

import hyperiqa.wrapper
import metaiqa.wrapper
import musiq.wrapper
import tres.wrapper

BACKBONES = {
    "tres": tres.wrapper.BACKBONE,
    "musiq": musiq.wrapper.BACKBONE,
    "hyperiqa": hyperiqa.wrapper.BACKBONE,
    "metaiqa": metaiqa.wrapper.BACKBONE,
}
