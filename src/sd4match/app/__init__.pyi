from .layout import build_app as build_app
from .theme import launch_options as launch_options
